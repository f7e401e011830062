// A panel of a quantized matrix product on AMX's tiles, the one kernel that this instruction set has of its own.
#pragma once
#include "../kernels.h"
#include "tiles.h"

namespace antiphon::ANTIPHON_AMX {

// As kernels.h has it. AVX-512's takes over where tiles would gain nothing, or for codes of a bias unknown here: with
// fewer rows than a tile product's cycles pay for, or with too few (row, group) pairs to pay for the first tiles, which
// have nothing to hide behind. A short K is attention's: 4 groups for heads of 128.
constexpr int64_t kLeastRows = 4;
constexpr int64_t kLeastWork = 64;
void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row, int64_t num_rows,
                  float* out);

}  // namespace antiphon::ANTIPHON_AMX
