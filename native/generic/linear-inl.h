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
  const int8_t* codes;  // [rows][planes][32]
  const float* scales;  // [rows]
  const int32_t* sums;  // [rows]
};

// out[0..16) += sums * (the channels' scales * the row's) and, if there are minima, += minima * offset: one fused
// multiply-add each.
template <bool HasScales>
static inline void add_scaled(float* out, I32 sums, F32 weight_scales, float row_scale, const uint16_t* mins,
                              F32 offset) {
  const F32 factor = HasScales ? mul(weight_scales, set1(row_scale)) : set1(row_scale);
  F32 result = fma(from_int(sums), factor, load(out));
  if (mins) result = fma(load_half(mins), offset, result);
  store(out, result);
}

// The exact integer sums of `Rows` rows times one group of a panel (two halves) or of half a panel.
template <WeightFormat Format, int Planes, int Rows>
struct Sums {
  // A sum has to wait for its last product. So each plane has a sum of its own and, in a tile of one row of one plane,
  // every other line.
  static constexpr int kParts = Planes == 1 && Rows == 1 ? 2 : Planes;
  Dot<Format> parts[kParts * Rows];

  void start(int32_t zero_point, const int32_t* row_sums) {
    for (int i = 0; i < kParts * Rows; ++i)
      parts[i] = Dot<Format>::start(zero_point, i % kParts == kParts - 1 ? row_sums[i / kParts] : 0);
  }
  // `codes`: those of row 0 that belong to the line.
  void step(const Codes& line_codes, int line, const int8_t* codes) {
    for (int r = 0; r < Rows; ++r)
      for (int plane = 0; plane < Planes; ++plane)
        parts[kParts * r + (Planes == 1 ? line % kParts : plane)].step(line_codes,
                                                                       codes + kGroup * (Planes * r + plane));
  }
  I32 finish(int row) const {
    const I32 last = parts[kParts * row + kParts - 1].finish();
    if (kParts == 1) return last;
    const I32 first = parts[kParts * row].finish();
    return add_int(Planes == 2 ? shift_left_8(first) : first, last);
  }
};

// `Rows` rows of activations times one group of a panel or of half a panel, added to `out`, whose rows are kPanel apart
// in both cases. With `HasScales` false, the channels' scales are all one.
template <WeightFormat Format, class Lines, int Halves, int Planes, int Rows, bool HasScales = true>
static inline void multiply_group(const GroupOperands& group, int64_t row, float* out) {
  Sums<Format, Planes, Rows> left, right;
  left.start(group.zero_point, group.sums + row);
  right.start(group.zero_point, group.sums + row);
#pragma GCC unroll 8
  for (int line = 0; line < 8; ++line) {
    const Codes left_codes = Lines::get(group.lines, line);
    const Codes right_codes = Halves == 2 ? Lines::get(group.lines + Lines::kHalfBytes, line) : left_codes;
    const int8_t* codes = group.codes + kGroup * Planes * row + 4 * line;
    left.step(left_codes, line, codes);
    if constexpr (Halves == 2) right.step(right_codes, line, codes);
  }
  const F32 left_scale = HasScales ? load_half(group.weight_scales) : set1(1.0f);
  const F32 right_scale = HasScales && Halves == 2 ? load_half(group.weight_scales + 16) : left_scale;
  for (int r = 0; r < Rows; ++r) {
    const float scale = group.scales[row + r];
    const F32 offset = set1(group.mins ? scale * static_cast<float>(group.sums[row + r]) : 0.0f);
    float* to = out + kPanel * (row + r);
    add_scaled<HasScales>(to, left.finish(r), left_scale, scale, group.mins, offset);
    if constexpr (Halves == 2)
      add_scaled<HasScales>(to + 16, right.finish(r), right_scale, scale, group.mins ? group.mins + 16 : nullptr,
                            offset);
  }
}

template <WeightFormat Format, class Lines, int Halves, int Planes, int Rows, bool HasScales = true>
static inline int64_t multiply_tiles(const GroupOperands& group, int64_t row, int64_t num_tiles, float* out) {
  for (; num_tiles > 0; --num_tiles, row += Rows)
    multiply_group<Format, Lines, Halves, Planes, Rows, HasScales>(group, row, out);
  return row;
}

constexpr int most_tile_rows(int planes) { return planes == 2 ? kWideTileRows : kTileRows; }

// Finds the tiles' height among those that are compiled.
template <WeightFormat Format, class Lines, int Halves, int Planes, bool HasScales = true,
          int Rows = most_tile_rows(Planes)>
static inline void multiply_rows(const GroupOperands& group, const Tiles& tiles, float* out) {
  if constexpr (Rows > 1) {
    if (tiles.height != Rows)
      return multiply_rows<Format, Lines, Halves, Planes, HasScales, Rows - 1>(group, tiles, out);
  }
  const int64_t row = multiply_tiles<Format, Lines, Halves, Planes, Rows, HasScales>(group, 0, tiles.num_high, out);
  if constexpr (Rows > 1)
    multiply_tiles<Format, Lines, Halves, Planes, Rows - 1, HasScales>(group, row, tiles.num_low, out);
}

template <int Planes>
static inline void multiply_values_of(const uint8_t* values, const QuantizedRows& weights, int64_t rows, float* out) {
  const GroupOperands group{values, nullptr, nullptr, 128, weights.codes, weights.scales, weights.sums};
  multiply_rows<WeightFormat::kW8, WholeLines, 2, Planes, false>(group, Tiles(rows, most_tile_rows(Planes)), out);
}

// Adds `rows` rows of quantized weights times the values of one block, [32 tokens][32 channels] in 8 bits with a zero
// point of 128 and no scales, to `out`: attention's second product, for a panel of the head's channels.
static inline void multiply_values(const uint8_t* values, const QuantizedRows& weights, int64_t rows, float* out) {
  weights.planes == 2 ? multiply_values_of<2>(values, weights, rows, out)
                      : multiply_values_of<1>(values, weights, rows, out);
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
template <WeightFormat Format, int Halves, int Planes>
static void linear_panel_of(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out) {
  alignas(64) uint8_t lines[kPanel * kGroup];
  const bool split = Format == WeightFormat::kW4 && num_rows * Planes > kUnsplitRows;
  if (num_rows == 0) return;
  const Tiles tiles(num_rows, most_tile_rows(Planes));
  const Prefetch next(matrix, num_rows * Planes);
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
        packed,      matrix.scales + scale_at, mins, matrix.zero_point, in.codes + at * Planes * kGroup, in.scales + at,
        in.sums + at};
    if (split) {
      split_group<Halves>(packed, lines);
      group.lines = lines;
    }
    if (Format == WeightFormat::kW4 && !split) {
      const int64_t row = multiply_tiles<Format, NibbleLines, Halves, Planes, 2>(group, 0, num_rows / 2, out);
      multiply_tiles<Format, NibbleLines, Halves, Planes, 1>(group, row, num_rows % 2, out);
      continue;
    }
    multiply_rows<Format, WholeLines, Halves, Planes>(group, tiles, out);
  }
}

template <int Halves>
static void multiply_panel(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                           int64_t first_row, int64_t num_rows, float* out) {
  constexpr auto kW4 = WeightFormat::kW4, kW8 = WeightFormat::kW8;
  const auto multiply = matrix.format == kW4
                            ? (in.planes == 2 ? linear_panel_of<kW4, Halves, 2> : linear_panel_of<kW4, Halves, 1>)
                            : (in.planes == 2 ? linear_panel_of<kW8, Halves, 2> : linear_panel_of<kW8, Halves, 1>);
  multiply(matrix, panel, first_half, in, first_row, num_rows, out);
}

static void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                         int64_t num_rows, float* out) {
  multiply_panel<2>(matrix, panel, 0, in, first_row, num_rows, out);
}

static void linear_half_panel(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                              int64_t first_row, int64_t num_rows, float* out) {
  multiply_panel<1>(matrix, panel, half, in, first_row, num_rows, out);
}
#endif
