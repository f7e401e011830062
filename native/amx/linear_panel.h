// A panel of a quantized matrix product on AMX's tiles, the one kernel that this instruction set has of its own.
#pragma once
#include "../kernels.h"
#include "tiles.h"

namespace antiphon::ANTIPHON_AMX {

// As kernels.h says. AVX-512's kernel is used where tiles gain nothing, as measured on an Emerald Rapids: with few
// rows, where both kernels wait for memory and AVX-512's waits less; for a short K, where the first tiles of a call
// overlap with nothing (attention's scores have 4 groups for heads of 128); and for codes of a zero point unknown here.
// Rows are counted in lines of a tile: one with two planes takes two.
constexpr int64_t least_rows(WeightFormat format) { return format == WeightFormat::kW4 ? 12 : 16; }
constexpr int64_t kLeastGroups = 16;
void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row, int64_t num_rows,
                  float* out);
void linear_half_panel(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                       int64_t first_row, int64_t num_rows, float* out);

}  // namespace antiphon::ANTIPHON_AMX
