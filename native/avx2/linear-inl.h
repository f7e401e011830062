// A panel of a quantized matrix product for processors with 16 registers of 32 bytes, in place of
// ../generic/linear-inl.h. Included inside an instruction set's namespace; see kernels.h for the layouts and for what
// is promised about the bits.
//
// What all rows or all channels of a group need is computed once for the group and stored, so that the loop over rows
// does little besides multiplying. Reading it back and broadcasting it from memory does not occupy the units that
// multiply. docs/decisions/030-products-on-avx2.md counts the instructions.

#include "../generic/row_tiles-inl.h"

constexpr int kHalfRegisters = kPanel / 16;  // of 8 channels each, for half a panel
// One tile at most, or 1-row tiles: 4-bit codes are then split in registers.
constexpr int few_rows(int planes) { return planes == 2 ? 1 : 3; }

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

// Adds the products of a group's codes with the operands of `Rows` rows, `stride` bytes apart, to their exact sums.
template <class Product, class Lines, int Registers, int Rows>
__attribute__((always_inline)) static inline void add_products(const uint8_t* lines, const int8_t* operands,
                                                               int64_t stride,
                                                               typename Product::Sum (&sums)[Rows][Registers]) {
#pragma GCC unroll 8
  for (int step = 0; step < 8; ++step) {
    __m256i codes[Registers];
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i) codes[i] = Lines::get(lines, step, i);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const auto operand = Product::operand(operands + r * stride + 4 * step);
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
  add_products<Product, Lines>(group.lines, group.operands + row * Product::kOperandBytes, Product::kOperandBytes,
                               sums);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const __m256 row_scale = _mm256_broadcast_ss(group.row_scales + row + r);
    float* to = out + kPanel * (row + r);
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i, to += 8) {
      const __m256 bits = _mm256_castsi256_ps(Product::finish(sums[r][i], group.starts + row + r));
      const __m256 sum = _mm256_sub_ps(bits, _mm256_set1_ps(kFloatOfZero));
      add_scaled<HasMins>(group, row + r, i, row_scale, sum, to);
    }
  }
}

// The same for two planes. The registers hold the sums of one plane; only a single row's hold both, as if they were two
// rows, so that each code is read once.
template <class Product, class Lines, bool HasMins, int Registers, int Rows>
__attribute__((always_inline)) static inline void multiply_wide_tile(const Group& group, int64_t row, float* out) {
  constexpr int kBytes = Product::kOperandBytes;
  const int8_t* operands = group.operands + 2 * row * kBytes;
  const RowStart* starts = group.wide_starts + row;
  typename Product::High high[Rows][Registers];
  typename Product::Sum low[Rows][Registers];
  if constexpr (Rows == 1 && kBytes == kGroup) {
    typename Product::Sum both[2][Registers];
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i) {
      both[0][i] = Product::start(&starts->high);
      both[1][i] = Product::start(&starts->low);
    }
    add_products<Product, Lines>(group.lines, operands, kBytes, both);
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i) {
      high[0][i] = Product::finish_high(both[0][i]);
      low[0][i] = both[1][i];
    }
  } else {
    typename Product::Sum sums[Rows][Registers];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < Registers; ++i) sums[r][i] = Product::start(&starts[r].high);
    add_products<Product, Lines>(group.lines, operands, 2 * kBytes, sums);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < Registers; ++i) high[r][i] = Product::finish_high(sums[r][i]);
    asm("" : "+m"(high));  // gcc would keep some in registers and spill sums instead
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < Registers; ++i) low[r][i] = Product::start(&starts[r].low);
    add_products<Product, Lines>(group.lines, operands + kBytes, 2 * kBytes, low);
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const __m256 row_scale = _mm256_broadcast_ss(group.row_scales + row + r);
    float* to = out + kPanel * (row + r);
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i, to += 8)
      add_scaled<HasMins>(group, row + r, i, row_scale, Product::join(high[r][i], low[r][i], starts + r), to);
  }
}

template <class Product, class Lines, bool HasMins, int Halves, int Planes, int Rows>
__attribute__((always_inline)) static inline void multiply_tile(const Group& group, int64_t row, float* out) {
  constexpr int kRegisters = kHalfRegisters * Halves;
  if constexpr (Planes == 2)
    multiply_wide_tile<Product, Lines, HasMins, kRegisters, Rows>(group, row, out);
  else
    multiply_narrow_tile<Product, Lines, HasMins, kRegisters, Rows>(group, row, out);
}

// Not inlined: gcc would move loads of codes from the tiles' loop to before it, and spill them.
template <class Product, class Lines, bool HasMins, int Halves, int Planes, int Rows>
__attribute__((noinline)) static int64_t multiply_tiles(const Group& group, int64_t row, int64_t num_tiles,
                                                        float* out) {
  for (; num_tiles > 0; --num_tiles, row += Rows)
    multiply_tile<Product, Lines, HasMins, Halves, Planes, Rows>(group, row, out);
  return row;
}

// Finds the tiles' height among those that are compiled.
template <class Product, class Lines, bool HasMins, int Halves, int Planes, int Rows = Product::kTileRows>
static inline void multiply_rows(const Group& group, const Tiles& tiles, float* out) {
  if constexpr (Rows > 1) {
    if (tiles.height != Rows)
      return multiply_rows<Product, Lines, HasMins, Halves, Planes, Rows - 1>(group, tiles, out);
  }
  const int64_t row = multiply_tiles<Product, Lines, HasMins, Halves, Planes, Rows>(group, 0, tiles.num_high, out);
  if constexpr (Rows > 1)
    multiply_tiles<Product, Lines, HasMins, Halves, Planes, Rows - 1>(group, row, tiles.num_low, out);
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
  const Tiles tiles(num_rows, Product::kTileRows);
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
      constexpr int kHeight = Rows <= Product::kTileRows ? Rows : 1;
      for (int row = 0; row < Rows; row += kHeight)
        multiply_tile<Product, PackedLines<Format>, HasMins, Halves, Planes, kHeight>(group, row, out);
    } else {
      if (Format == WeightFormat::kW4) {
        split_nibbles<Halves>(packed, group.whole);
        group.lines = group.whole;
      }
      multiply_rows<Product, WholeLines, HasMins, Halves, Planes>(group, tiles, out);
    }
  }
}

// Finds `num_rows` among the few that are compiled. `first_half`: 0 for a whole panel.
template <WeightFormat Format, bool HasMins, int Halves, int Planes, int Rows = few_rows(Planes)>
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
