// A panel of a quantized matrix product for processors with 16 registers of 32 bytes, in place of
// ../generic/linear-inl.h. Included inside an instruction set's namespace; see kernels.h for the layouts and for what
// is promised about the bits.
//
// What all rows or all channels of a group need is computed once for the group and stored, so that the loop over rows
// does little besides multiplying. Reading it back and broadcasting it from memory does not occupy the units that
// multiply. docs/decisions/030-products-on-avx2.md counts the instructions.

#include "../generic/row_tiles-inl.h"

constexpr int kHalfRegisters = kPanel / 16;  // of 8 channels each, for half a panel
constexpr int kFewRows = 4;  // so many have functions of their own, which split 4-bit codes in registers

constexpr int kTileRegisters = 8;  // of sums, which leaves room for a step's codes

// The rows of a tile of a whole panel. Two planes of a row are like two rows.
template <class Product>
constexpr int tile_rows(int planes) {
  return planes == 2 ? 1 : kTileRegisters / (2 * kHalfRegisters * Product::kSumRegisters);
}
// Three rows as one tile read some codes twice, but split them once.
template <class Product>
constexpr int few_tile_rows(int planes, int rows) {
  return tile_rows<Product>(planes) == 1 ? 1 : rows == 4 ? 2 : rows;
}

// Where a tile finds the codes of 4 values of k (a step) for 8 channels (a register): one code a byte or, for 4-bit
// codes, two.
struct WholeLines {
  static inline uint8_t* at(uint8_t* lines, int step, int index) {
    return lines + 512 * (index / 2) + 64 * step + 32 * (index % 2);
  }
  static inline __m256i get(const uint8_t* lines, int step, int index) {
    return load_bytes(at(const_cast<uint8_t*>(lines), step, index));
  }
};
template <WeightFormat>
struct PackedLines : WholeLines {};
template <>
struct PackedLines<WeightFormat::kW4> {
  static inline __m256i get(const uint8_t* packed, int step, int index) {
    const __m256i both = load_bytes(packed + 256 * (index / 2) + 64 * (step % 4) + 32 * (index % 2));
    return _mm256_and_si256(step < 4 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(0x0F));
  }
};

// One group of a panel and of rows of activations.
struct Group {
  alignas(64) float scales[kPanel];                  // of the channels
  alignas(64) float mins[kPanel];                    // of the channels
  alignas(64) int32_t starts[kRowChunk];             // what the sums of a row start from, with one plane
  alignas(64) float offsets[kRowChunk];              // a row's scale times the sum of its codes
  alignas(64) int8_t split[kRowChunk * 2 * kGroup];  // of rows times planes
  alignas(64) uint8_t whole[kPanel * kGroup];
  const uint8_t* lines;    // as `Lines` reads them
  const int8_t* operands;  // as `Product` reads them
  const float* row_scales;
  alignas(64) RowStart wide_starts[kRowChunk];  // `starts`, with two planes
};

// to[0..8) += sums * (the channels' scales * the row's), += minima * the row's offset: one fused multiply-add each.
template <bool HasMins>
__attribute__((always_inline)) static inline void add_scaled(const Group& group, int64_t row, int index,
                                                             __m256 row_scale, __m256 sums, float* to) {
  const __m256 scale = _mm256_mul_ps(row_scale, _mm256_load_ps(group.scales + 8 * index));
  __m256 result = _mm256_fmadd_ps(sums, scale, _mm256_loadu_ps(to));
  if (HasMins)
    result = _mm256_fmadd_ps(_mm256_load_ps(group.mins + 8 * index), _mm256_broadcast_ss(group.offsets + row), result);
  _mm256_storeu_ps(to, result);
}

// Adds the products of a group's codes with the operands of `Rows` rows to their exact sums. While the registers hold
// the codes of a step, they are kept there: left to itself, gcc reads some of them once more for each row.
template <class Product, class Lines, int First, int Registers, int Rows>
__attribute__((always_inline)) static inline void add_products(const uint8_t* lines, const int8_t* operands,
                                                               typename Product::Sum (&sums)[Rows][Registers]) {
#pragma GCC unroll 8
  for (int step = 0; step < 8; ++step) {
    __m256i codes[Registers];
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i) {
      codes[i] = Lines::get(lines, step, First + i);
      if (Rows <= 2) keep(codes[i]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const auto operand = Product::operand(operands + r * Product::kOperandBytes + 4 * step);
#pragma GCC unroll 4
      for (int i = 0; i < Registers; ++i) Product::add(sums[r][i], codes[i], operand);
    }
  }
}

// Rows [row, row + Rows) of one plane times the group: exact integers, then one fused multiply-add a channel.
template <class Product, class Lines, bool HasMins, int Registers, int Rows>
__attribute__((always_inline)) static inline void multiply_narrow_tile(const Group& group, int64_t row, float* out) {
  typename Product::Sum sums[Rows][Registers];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i) sums[r][i] = Product::start(group.starts + row + r);
  add_products<Product, Lines, 0>(group.lines, group.operands + row * Product::kOperandBytes, sums);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const __m256 row_scale = _mm256_broadcast_ss(group.row_scales + row + r);
    const __m256i rest = Product::rest(group.starts + row + r);
    float* to = out + kPanel * (row + r);
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i, to += 8) {
      const __m256 bits = _mm256_castsi256_ps(Product::finish(sums[r][i], rest));
      const __m256 sum = _mm256_sub_ps(bits, _mm256_set1_ps(kFloatOfZero));
      add_scaled<HasMins>(group, row + r, i, row_scale, sum, to);
    }
  }
}

// The same for a row of two planes, whose sums are in registers like those of two rows, so that each code is read once:
// `Registers` of channels from `First`.
template <class Product, class Lines, bool HasMins, int Registers, int First>
__attribute__((always_inline)) static inline void multiply_wide_row(const Group& group, int64_t row, float* out) {
  const RowStart& start = group.wide_starts[row];
  typename Product::Sum sums[2][Registers];
#pragma GCC unroll 4
  for (int i = 0; i < Registers; ++i) {
    sums[0][i] = Product::start(&start.high);
    sums[1][i] = Product::start(&start.low);
  }
  add_products<Product, Lines, First>(group.lines, group.operands + 2 * row * Product::kOperandBytes, sums);
  const __m256 row_scale = _mm256_broadcast_ss(group.row_scales + row);
  const __m256i rest = Product::rest(&start.low);
  float* to = out + kPanel * row + 8 * First;
#pragma GCC unroll 4
  for (int i = 0; i < Registers; ++i, to += 8) {
    const __m256 sum = Product::join(sums[0][i], sums[1][i], rest);
    add_scaled<HasMins>(group, row, First + i, row_scale, sum, to);
  }
}

template <class Product, class Lines, bool HasMins, int Halves, int Planes, int Rows>
__attribute__((always_inline)) static inline void multiply_tile(const Group& group, int64_t row, float* out) {
  constexpr int kRegisters = kHalfRegisters * Halves;
  if constexpr (Planes == 1) {
    multiply_narrow_tile<Product, Lines, HasMins, kRegisters, Rows>(group, row, out);
  } else if constexpr (2 * kRegisters * Product::kSumRegisters <= kTileRegisters) {
    multiply_wide_row<Product, Lines, HasMins, kRegisters, 0>(group, row, out);
  } else {
    multiply_wide_row<Product, Lines, HasMins, 2, 0>(group, row, out);
    multiply_wide_row<Product, Lines, HasMins, 2, 2>(group, row, out);
  }
}

// All rows of the group, in tiles; the last one may have a row less.
template <class Product, class Lines, bool HasMins, int Halves, int Planes>
static inline void multiply_rows(const Group& group, int64_t num_rows, float* out) {
  constexpr int kRows = tile_rows<Product>(Planes);
  int64_t row = 0;
  for (; row + kRows <= num_rows; row += kRows)
    multiply_tile<Product, Lines, HasMins, Halves, Planes, kRows>(group, row, out);
  if (row < num_rows) multiply_tile<Product, Lines, HasMins, Halves, Planes, 1>(group, row, out);
}

template <int Halves>
static inline void split_nibbles(const uint8_t* packed, uint8_t* whole) {
#pragma GCC unroll 8
  for (int step = 0; step < 8; ++step)
#pragma GCC unroll 4
    for (int i = 0; i < kHalfRegisters * Halves; ++i)
      store_bytes(WholeLines::at(whole, step, i), PackedLines<WeightFormat::kW4>::get(packed, step, i));
}

// What the rows and the channels of group `g` need.
template <class Product, bool HasMins, int Halves, int Planes>
static inline void prepare(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                           int64_t g, int64_t first_row, int64_t num_rows, Group& group) {
  const int64_t at = g * in.capacity + first_row,
                scale_at = (panel * (matrix.columns / kGroup) + g) * kPanel + 16 * first_half;
  for (int i = 0; i < 16 * Halves; i += 16) store(group.scales + i, load_half(matrix.scales + scale_at + i));
  for (int64_t row = 0; row < num_rows; ++row) {
    const int32_t start = -matrix.zero_point * in.sums[at + row];
    if (Planes == 2)
      group.wide_starts[row] = Product::split_start(start);
    else
      group.starts[row] = kBitsOfZero + start;
  }
  if (HasMins) {
    for (int i = 0; i < 16 * Halves; i += 16) store(group.mins + i, load_half(matrix.mins + scale_at + i));
    for (int64_t row = 0; row < num_rows; ++row)
      group.offsets[row] = in.scales[at + row] * static_cast<float>(in.sums[at + row]);
  }
  group.row_scales = in.scales + at;
  group.operands = in.codes + at * Planes * kGroup;
  if constexpr (Product::kOperandBytes > kGroup) {
    for (int64_t row = 0; row < num_rows * Planes; ++row)
      Product::split(group.operands + row * kGroup, group.split + row * Product::kOperandBytes);
    group.operands = group.split;
  }
}

// `Rows`: `num_rows` where there are few, so that the compiler knows it; else 0.
template <WeightFormat Format, bool HasMins, int Halves, int Planes, int Rows>
static void multiply_groups(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out) {
  using Product = DotProduct<Format>;
  const Prefetch next(matrix, num_rows * Planes);
  const int64_t groups = matrix.columns / kGroup, code_bytes = group_code_bytes(Format);
  const int64_t read_bytes = code_bytes / 2 * Halves;
  const uint8_t* packed = matrix.codes + panel * groups * code_bytes + first_half * (code_bytes / 2);
  out += 16 * first_half;
  Group group;
  for (int64_t g = 0; g < groups; ++g, packed += code_bytes) {
    // gcc would remove a function that only prefetches.
    if (matrix.fetch_bytes != PackedView::kNextGroups) {
      for (int64_t i = 0; i < matrix.fetch_bytes; i += 64) prefetch_far(matrix.fetch + g * matrix.fetch_bytes + i);
    } else {
      if (next.is_near)  // first, as those from memory would hold it up
        for (int64_t i = 0; i < read_bytes; i += 64) prefetch(packed + next.near_bytes + i);
      for (int64_t i = 0; i < read_bytes; i += 64) prefetch_far(packed + next.far_bytes + i);
    }
    prepare<Product, HasMins, Halves, Planes>(matrix, panel, first_half, in, g, first_row, Rows ? Rows : num_rows,
                                              group);
    group.lines = packed;
    if constexpr (Rows > 0) {
      constexpr int kHeight = few_tile_rows<Product>(Planes, Rows);
      for (int row = 0; row < Rows; row += kHeight)
        multiply_tile<Product, PackedLines<Format>, HasMins, Halves, Planes, kHeight>(group, row, out);
    } else {
      if (Format == WeightFormat::kW4) {
        split_nibbles<Halves>(packed, group.whole);
        group.lines = group.whole;
      }
      multiply_rows<Product, WholeLines, HasMins, Halves, Planes>(group, num_rows, out);
    }
  }
}

// Finds `num_rows` among the few that are compiled. `first_half`: 0 for a whole panel.
template <WeightFormat Format, bool HasMins, int Halves, int Planes, int Rows = kFewRows>
static void linear_panel_of(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out) {
  if constexpr (Rows == 0) {
    multiply_groups<Format, HasMins, Halves, Planes, 0>(matrix, panel, first_half, in, first_row, num_rows, out);
  } else {
    if (num_rows == Rows)
      return multiply_groups<Format, HasMins, Halves, Planes, Rows>(matrix, panel, first_half, in, first_row, num_rows,
                                                                    out);
    linear_panel_of<Format, HasMins, Halves, Planes, Rows - 1>(matrix, panel, first_half, in, first_row, num_rows, out);
  }
}

template <WeightFormat Format, int Halves, int Planes>
static void linear_panel_in(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out) {
  if (matrix.mins)
    linear_panel_of<Format, true, Halves, Planes>(matrix, panel, first_half, in, first_row, num_rows, out);
  else
    linear_panel_of<Format, false, Halves, Planes>(matrix, panel, first_half, in, first_row, num_rows, out);
}

template <int Halves>
static void multiply_panel(const PackedView& matrix, int64_t panel, int64_t first_half, const QuantizedRows& in,
                           int64_t first_row, int64_t num_rows, float* out) {
  constexpr auto kW4 = WeightFormat::kW4, kW8 = WeightFormat::kW8;
  const auto multiply = matrix.format == kW4
                            ? (in.planes == 2 ? linear_panel_in<kW4, Halves, 2> : linear_panel_in<kW4, Halves, 1>)
                            : (in.planes == 2 ? linear_panel_in<kW8, Halves, 2> : linear_panel_in<kW8, Halves, 1>);
  const int64_t most = kRowChunk / in.planes;
  for (int64_t done = 0; done < num_rows; done += most) {  // in attention there can be more
    const int64_t left = num_rows - done, count = left < most ? left : most;
    multiply(matrix, panel, first_half, in, first_row + done, count, out + done * kPanel);
  }
}

static void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                         int64_t num_rows, float* out) {
  multiply_panel<2>(matrix, panel, 0, in, first_row, num_rows, out);
}

static void linear_half_panel(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                              int64_t first_row, int64_t num_rows, float* out) {
  multiply_panel<1>(matrix, panel, half, in, first_row, num_rows, out);
}

// One, in half precision, for each channel of a panel.
struct ScalesOfOne {
  alignas(64) uint16_t halves[kPanel];
  constexpr ScalesOfOne() : halves() {
    for (uint16_t& half : halves) half = 0x3C00;
  }
};

// Attention's second product, as in ../generic/linear-inl.h: `values` as a panel of one group.
static inline void multiply_values(const uint8_t* values, const QuantizedRows& weights, int64_t rows, float* out) {
  static constexpr ScalesOfOne ones;
  const PackedView view{WeightFormat::kW8, kPanel, kGroup, 128, values, ones.halves, nullptr, nullptr, 0};
  linear_panel(view, 0, weights, 0, rows, out);
}
