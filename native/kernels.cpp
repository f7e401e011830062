// The kernels of one instruction set, and their table. CMakeLists.txt compiles this file once for each instruction set,
// with its flags and with four definitions:
//
//   ANTIPHON_ISA             its namespace
//   ANTIPHON_ISA_NAME        its name, as a string
//   ANTIPHON_ISA_TABLE       the table to define
//   ANTIPHON_VECTOR_HEADER   the vector layer on which the generic kernels are built
//
// Nothing of the C++ standard library may be instantiated here. Such a copy would be compiled with these flags, and the
// linker could keep it for the whole program.
#include "kernels.h"
#include "half.h"
#include ANTIPHON_VECTOR_HEADER

namespace antiphon::ANTIPHON_ISA {
#include "generic/linear-inl.h"
#include "generic/elementwise-inl.h"
#include "generic/kv_pool-inl.h"
#include "generic/attention-inl.h"
#include "generic/quantize-inl.h"
}  // namespace antiphon::ANTIPHON_ISA

namespace antiphon {
extern const Kernels ANTIPHON_ISA_TABLE;  // the tests define tables that kernels.h does not declare
const Kernels ANTIPHON_ISA_TABLE = {
    .name = ANTIPHON_ISA_NAME,
    .linear_panel = ANTIPHON_ISA::linear_panel,
    .linear_half_panel = ANTIPHON_ISA::linear_half_panel,
    .rms_norm = ANTIPHON_ISA::rms_norm,
    .silu_mul = ANTIPHON_ISA::silu_mul,
    .rope_and_store = ANTIPHON_ISA::rope_and_store,
    .attend = ANTIPHON_ISA::attend,
    .fold_attention = ANTIPHON_ISA::fold_attention,
    .summarize = ANTIPHON_ISA::summarize,
    .exponentials = ANTIPHON_ISA::exponentials,
    .sums_at_least = ANTIPHON_ISA::sums_at_least,
    .round_to_4_bits = ANTIPHON_ISA::round_to_4_bits,
};
}  // namespace antiphon
