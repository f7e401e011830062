// A panel of a quantized matrix product, written once over the vector layer. Included inside an instruction set's
// namespace; see kernels.h for the layouts and for what is promised about the bits.

#include "row_tiles-inl.h"

// Where a tile finds the 8 lines of a half group: each by itself or, of 4-bit codes, two in one.
struct WholeLines {
  static constexpr int64_t kHalfBytes = 512;
  static inline Codes get(const uint8_t* half, int line) { return load_codes(half + 64 * line); }
};
struct NibbleLines {
  static constexpr int64_t kHalfBytes = 256;
  static inline Codes get(const uint8_t* half, int line) {
    return line < 4 ? low_nibbles(load_codes(half + 64 * line)) : high_nibbles(load_codes(half + 64 * (line - 4)));
  }
};

// The operands of one group: the weights of a panel or of half a panel, and rows of activations.
struct GroupOperands {
  const uint8_t* lines;
  const uint16_t* weight_scales;  // [16 * halves]
  const uint16_t* mins;           // [16 * halves], or null
  int32_t zero_point;
  const int8_t* codes;  // [rows][32]
  const float* scales;  // [rows]
  const int32_t* sums;  // [rows]
};

// `Rows` rows of activations times one group of a panel (two halves) or of half a panel: exact integers, then one fused
// multiply-add for each channel. The rows of `out` are kPanel apart in both cases. With `HasScales` false, the
// channels' scales are all one.
template <WeightFormat Format, class Lines, int Halves, int Rows, bool HasScales = true>
static inline void multiply_group(const GroupOperands& group, int64_t row, float* out) {
  // A sum has to wait for its last product. Where a tile has one row, every other line adds to a sum of its own.
  constexpr int kSums = Rows == 1 ? 2 : 1;
  Dot<Format> left[kSums * Rows], right[kSums * Rows];
  for (int r = 0; r < kSums * Rows; ++r) {
    const int32_t sum = r < Rows ? group.sums[row + r] : 0;
    left[r] = right[r] = Dot<Format>::start(group.zero_point, sum);
  }
#pragma GCC unroll 8
  for (int line = 0; line < 8; ++line) {
    const Codes left_codes = Lines::get(group.lines, line);
    const Codes right_codes = Halves == 2 ? Lines::get(group.lines + Lines::kHalfBytes, line) : left_codes;
    const int8_t* codes = group.codes + kGroup * row + 4 * line;
    const int first = line % kSums;
    for (int r = 0; r < Rows; ++r) left[first + r].step(left_codes, codes + kGroup * r);
    if constexpr (Halves == 2)
      for (int r = 0; r < Rows; ++r) right[first + r].step(right_codes, codes + kGroup * r);
  }
  const F32 left_scale = HasScales ? load_half(group.weight_scales) : set1(1.0f);
  const F32 right_scale = HasScales && Halves == 2 ? load_half(group.weight_scales + 16) : left_scale;
  for (int r = 0; r < Rows; ++r) {
    I32 left_sum = left[r].finish(), right_sum = right[r].finish();
    if (kSums == 2) {
      left_sum = add_int(left_sum, left[1].finish());
      right_sum = add_int(right_sum, right[1].finish());
    }
    const float scale = group.scales[row + r];
    const F32 left_factor = HasScales ? mul(left_scale, set1(scale)) : set1(scale);
    const F32 right_factor = HasScales ? mul(right_scale, set1(scale)) : set1(scale);
    float* to = out + kPanel * (row + r);
    const F32 offset = set1(group.mins ? scale * static_cast<float>(group.sums[row + r]) : 0.0f);
    F32 left_out = fma(from_int(left_sum), left_factor, load(to));
    if (group.mins) left_out = fma(load_half(group.mins), offset, left_out);
    store(to, left_out);
    if constexpr (Halves == 2) {
      F32 right_out = fma(from_int(right_sum), right_factor, load(to + 16));
      if (group.mins) right_out = fma(load_half(group.mins + 16), offset, right_out);
      store(to + 16, right_out);
    }
  }
}

template <WeightFormat Format, class Lines, int Halves, int Rows, bool HasScales = true>
static inline int64_t multiply_tiles(const GroupOperands& group, int64_t row, int64_t num_tiles, float* out) {
  for (; num_tiles > 0; --num_tiles, row += Rows)
    multiply_group<Format, Lines, Halves, Rows, HasScales>(group, row, out);
  return row;
}

// Finds the tiles' height among those that are compiled.
template <WeightFormat Format, class Lines, int Halves, bool HasScales = true, int Rows = kTileRows>
static inline void multiply_rows(const GroupOperands& group, const Tiles& tiles, float* out) {
  if constexpr (Rows > 1) {
    if (tiles.height != Rows) return multiply_rows<Format, Lines, Halves, HasScales, Rows - 1>(group, tiles, out);
  }
  const int64_t row = multiply_tiles<Format, Lines, Halves, Rows, HasScales>(group, 0, tiles.num_high, out);
  if constexpr (Rows > 1) multiply_tiles<Format, Lines, Halves, Rows - 1, HasScales>(group, row, tiles.num_low, out);
}

// Adds `rows` rows of quantized weights times the values of one block, [32 tokens][32 channels] in 8 bits with a zero
// point of 128 and no scales, to `out`: attention's second product, for a panel of the head's channels.
static inline void multiply_values(const uint8_t* values, const QuantizedRows& weights, int64_t rows, float* out) {
  const GroupOperands group{values, nullptr, nullptr, 128, weights.codes, weights.scales, weights.sums};
  multiply_rows<WeightFormat::kW8, WholeLines, 2, false>(group, Tiles(rows, kTileRows), out);
}

#ifndef ANTIPHON_HAS_OWN_LINEAR_PANEL  // set by the vector header

template <int Halves>
static inline void split_group(const uint8_t* packed, uint8_t* lines) {
  for (int half = 0; half < Halves; ++half)
    for (int line = 0; line < 8; ++line)
      store_codes(lines + WholeLines::kHalfBytes * half + 64 * line,
                  NibbleLines::get(packed + NibbleLines::kHalfBytes * half, line));
}

// `first_half`: 0 for a whole panel.
template <WeightFormat Format, int Halves>
static void linear_panel_of(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out) {
  alignas(64) uint8_t lines[kPanel * kGroup];
  const bool split = Format == WeightFormat::kW4 && num_rows > kUnsplitRows;
  if (num_rows == 0) return;
  const Tiles tiles(num_rows, kTileRows);
  const Prefetch next(matrix, num_rows);
  const int64_t groups = matrix.columns / kGroup;
  const int64_t code_bytes = group_code_bytes(Format), read_bytes = code_bytes / 2 * Halves;
  const uint8_t* packed = matrix.codes + panel * groups * code_bytes + first_half * (code_bytes / 2);
  out += 16 * first_half;
  for (int64_t g = 0; g < groups; ++g, packed += code_bytes) {
    const int64_t at = g * in.capacity + first_row, scale_at = (panel * groups + g) * kPanel + 16 * first_half;
    const uint16_t* mins = matrix.mins ? matrix.mins + scale_at : nullptr;
    // gcc would remove a function that only prefetches.
    if (matrix.fetch_bytes != PackedView::kNextGroups) {
      for (int64_t i = 0; i < matrix.fetch_bytes; i += 64) prefetch_far(matrix.fetch + g * matrix.fetch_bytes + i);
    } else {
      if (next.is_near)  // first, as those from memory would hold it up
        for (int64_t i = 0; i < read_bytes; i += 64) prefetch(packed + next.near_bytes + i);
      for (int64_t i = 0; i < read_bytes; i += 64) prefetch_far(packed + next.far_bytes + i);
      prefetch_far(matrix.scales + scale_at + Prefetch::kFarGroups * kPanel);
      if (mins) prefetch_far(mins + Prefetch::kFarGroups * kPanel);
    }
    GroupOperands group{
        packed,      matrix.scales + scale_at, mins, matrix.zero_point, in.codes + at * kGroup, in.scales + at,
        in.sums + at};
    if (split) {
      split_group<Halves>(packed, lines);
      group.lines = lines;
    }
    if (Format == WeightFormat::kW4 && !split) {
      const int64_t row = multiply_tiles<Format, NibbleLines, Halves, 2>(group, 0, num_rows / 2, out);
      multiply_tiles<Format, NibbleLines, Halves, 1>(group, row, num_rows % 2, out);
      continue;
    }
    multiply_rows<Format, WholeLines, Halves>(group, tiles, out);
  }
}

static void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                         int64_t num_rows, float* out) {
  if (matrix.format == WeightFormat::kW4)
    linear_panel_of<WeightFormat::kW4, 2>(matrix, panel, 0, in, first_row, num_rows, out);
  else
    linear_panel_of<WeightFormat::kW8, 2>(matrix, panel, 0, in, first_row, num_rows, out);
}

static void linear_half_panel(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                              int64_t first_row, int64_t num_rows, float* out) {
  if (matrix.format == WeightFormat::kW4)
    linear_panel_of<WeightFormat::kW4, 1>(matrix, panel, half, in, first_row, num_rows, out);
  else
    linear_panel_of<WeightFormat::kW8, 1>(matrix, panel, half, in, first_row, num_rows, out);
}
#endif
