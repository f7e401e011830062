// The kernels of namespace avxvnni; see ../avx2/kernels.cpp for what must not be used here.
#include "../kernels.h"
#include "vector.h"
#include "../half.h"

namespace antiphon::avxvnni {
#include "../generic/linear-inl.h"
#include "../generic/elementwise-inl.h"
#include "../generic/kv_pool-inl.h"
#include "../generic/attention-inl.h"
#include "../generic/quantize-inl.h"
}  // namespace antiphon::avxvnni

namespace antiphon {
#ifdef ANTIPHON_EMULATE_DPBUSD
extern const Kernels kEmulatedAvxVnniKernels;
const Kernels kEmulatedAvxVnniKernels = {
#else
const Kernels kAvxVnniKernels = {
#endif
    "avxvnni",       avxvnni::linear_panel, avxvnni::rms_norm,     avxvnni::silu_mul,      avxvnni::rope_and_store,
    avxvnni::attend, avxvnni::summarize,    avxvnni::exponentials, avxvnni::sums_at_least, avxvnni::round_to_4_bits,
};
}  // namespace antiphon
