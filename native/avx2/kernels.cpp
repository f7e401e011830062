// The kernels of namespace avx2. Nothing of the C++ standard library may be instantiated here: what is compiled with
// this file's flags must not become the copy that the linker keeps for everyone.
#include "../kernels.h"
#include "vector.h"
#include "../half.h"

namespace antiphon::avx2 {
#include "../generic/linear-inl.h"
#include "../generic/elementwise-inl.h"
#include "../generic/kv_pool-inl.h"
#include "../generic/attention-inl.h"
#include "../generic/quantize-inl.h"
}  // namespace antiphon::avx2

namespace antiphon {
const Kernels kAvx2Kernels = {
    "avx2",       avx2::linear_panel, avx2::rms_norm,     avx2::silu_mul,      avx2::rope_and_store,
    avx2::attend, avx2::summarize,    avx2::exponentials, avx2::sums_at_least, avx2::round_to_4_bits,
};
}  // namespace antiphon
