// The kernels of namespace scalar. Nothing of the C++ standard library may be instantiated here: what is compiled with
// this file's flags must not become the copy that the linker keeps for everyone.
#include "../kernels.h"
#include "vector.h"
#include "../half.h"

namespace antiphon::scalar {
#include "../generic/linear-inl.h"
#include "../generic/elementwise-inl.h"
#include "../generic/kv_pool-inl.h"
#include "../generic/attention-inl.h"
#include "../generic/quantize-inl.h"
}  // namespace antiphon::scalar

namespace antiphon {
const Kernels kScalarKernels = {
    "scalar",       scalar::linear_panel, scalar::rms_norm,     scalar::silu_mul,      scalar::rope_and_store,
    scalar::attend, scalar::summarize,    scalar::exponentials, scalar::sums_at_least, scalar::round_to_4_bits,
};
}  // namespace antiphon
