// The kernels of namespace avx512. Nothing of the C++ standard library may be instantiated here: what is compiled with
// this file's flags must not become the copy that the linker keeps for everyone.
#include "../kernels.h"
#include "vector.h"
#include "../half.h"

namespace antiphon::avx512 {
#include "../generic/linear-inl.h"
#include "../generic/elementwise-inl.h"
#include "../generic/kv_pool-inl.h"
#include "../generic/attention-inl.h"
#include "../generic/quantize-inl.h"
}  // namespace antiphon::avx512

namespace antiphon {
const Kernels kAvx512Kernels = {
    "avx512",       avx512::linear_panel, avx512::rms_norm,     avx512::silu_mul,      avx512::rope_and_store,
    avx512::attend, avx512::summarize,    avx512::exponentials, avx512::sums_at_least, avx512::round_to_4_bits,
};
}  // namespace antiphon
