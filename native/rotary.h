// Rotary positions: what each pair of dimensions is multiplied by at a position.
#pragma once
#include <cstdint>
#include <span>

namespace antiphon {

// Fills cosines and sines, each [end - first][frequencies], of the angles of positions [first, end), times `factor`.
// Frequencies are in radians a position. Angles are computed in float64; results are rounded to float32.
void fill_rotary_tables(std::span<const double> frequencies, double factor, int64_t first, int64_t end, float* cosines,
                        float* sines);

}  // namespace antiphon
