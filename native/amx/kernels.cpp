// The kernels of namespace amx: AVX-512's, but for products, attention's scores among them, which are made on tiles.
// Nothing of the C++ standard library may be instantiated here; see ../avx512/kernels.cpp.
#include "../kernels.h"
#include "../avx512/vector.h"
#include "../half.h"
#include "linear_panel.h"

namespace antiphon::ANTIPHON_AMX {
using namespace avx512;  // the vector layer
#include "../generic/elementwise-inl.h"
#include "../generic/kv_pool-inl.h"
#include "../generic/attention-inl.h"
#include "../generic/quantize-inl.h"
}  // namespace antiphon::ANTIPHON_AMX

namespace antiphon {
#ifdef ANTIPHON_EMULATE_TILES
#define ANTIPHON_AMX_TABLE kEmulatedAmxKernels
extern const Kernels kEmulatedAmxKernels;
#else
#define ANTIPHON_AMX_TABLE kAmxKernels
#endif
const Kernels ANTIPHON_AMX_TABLE = {
    "amx",
    ANTIPHON_AMX::linear_panel,
    ANTIPHON_AMX::rms_norm,
    ANTIPHON_AMX::silu_mul,
    ANTIPHON_AMX::rope_and_store,
    ANTIPHON_AMX::attend,
    ANTIPHON_AMX::summarize,
    ANTIPHON_AMX::exponentials,
    ANTIPHON_AMX::sums_at_least,
    ANTIPHON_AMX::round_to_4_bits,
};
}  // namespace antiphon
