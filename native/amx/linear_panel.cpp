// The vector units' half of the product: each tile of integer sums becomes floats, is scaled and added, in the order of
// k, to float sums that stay in registers through a run (products.h has the other half, and says what a run is). Why it
// is built so: docs/decisions/010-amx.md. Nothing of the C++ standard library may be instantiated here; see
// ../avx512/kernels.cpp.
#include "linear_panel.h"

#include "../avx512/vector.h"
#include "products.h"

namespace antiphon::ANTIPHON_AMX {
namespace {

using avx512::load_half;

// Where one group's numbers are: scales and minima of 16 channels, scales and code sums of the activation rows.
struct GroupScales {
  const uint16_t* scales;
  const uint16_t* mins;  // or null
  const float* row_scales;
  const int32_t* row_sums;
};

// out[row] += sums[row] * (the channels' scales * the row's), one fused multiply-add; then the minima's.
template <int Rows>
__attribute__((always_inline)) static inline void add_scaled(__m512 (&out)[Rows], const int32_t* sums,
                                                             const GroupScales& group) {
  const __m512 scales = load_half(group.scales);
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
    const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(group.row_scales[row]));
    out[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + 16 * row)), scale, out[row]);
  }
  if (!group.mins) return;
  alignas(64) float offsets[16];
  constexpr auto kAllRows = static_cast<__mmask16>((1u << Rows) - 1u);
  const __m512 row_sums = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(kAllRows, group.row_sums));
  _mm512_store_ps(offsets, _mm512_mul_ps(_mm512_maskz_loadu_ps(kAllRows, group.row_scales), row_sums));
  asm("" : "+m"(offsets));  // else gcc broadcasts by permutations, which the vector units, the bound, would have to do
  const __m512 mins = load_half(group.mins);
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) out[row] = _mm512_fmadd_ps(mins, _mm512_set1_ps(offsets[row]), out[row]);
}

struct Walk {
  const PackedView& matrix;
  int64_t panel;
  const QuantizedRows& in;
  int64_t first_row;
  RowTiles rows;
  float* out;

  int64_t groups() const { return matrix.columns / kGroup; }
};

static inline GroupScales scales_of(const Walk& walk, int64_t group, int64_t half, int64_t row) {
  const int64_t channel = (walk.panel * walk.groups() + group) * kPanel + half * 16;
  const int64_t at = group * walk.in.capacity + walk.first_row + row;
  const uint16_t* mins = walk.matrix.mins;
  return {walk.matrix.scales + channel, mins ? mins + channel : nullptr, walk.in.scales + at, walk.in.sums + at};
}

// One run: a tile of rows times half the panel, over the groups [begin, end).
template <int Rows>
__attribute__((always_inline)) static inline void add_run(const Walk& walk, Products& products, int64_t row_tile,
                                                          int64_t half, int64_t begin, int64_t end) {
  const int64_t first = walk.rows.first(row_tile), capacity = walk.in.capacity;
  float* out = walk.out + first * kPanel + half * 16;
  __m512 sums[Rows];
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) sums[row] = _mm512_loadu_ps(out + kPanel * row);
  GroupScales group = scales_of(walk, begin, half, first);
  for (int64_t at = begin; at < end; ++at) {
    if (row_tile == 0) products.fetch(at + Products::kFetchAhead, half);
    add_scaled<Rows>(sums, products.next(), group);
    group.scales += kPanel;
    if (group.mins) group.mins += kPanel;
    group.row_scales += capacity;
    group.row_sums += capacity;
  }
  const int64_t done = row_tile * Rows - first;  // rows that the tile before has added up
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
    if (row >= done) _mm512_storeu_ps(out + kPanel * row, sums[row]);
}

template <int Rows>
static void walk_panel(const Walk& walk) {
  Workspace workspace;
  Products products(walk.matrix, walk.panel, walk.in, walk.first_row, walk.rows, workspace);
  products.start();
  for (int64_t begin = 0; begin < walk.groups(); begin += kChunkGroups) {
    const int64_t end = begin + products.groups_in_chunk(begin);
    for (int64_t run = 0; run < 2 * walk.rows.count; ++run) {
      if (run == 2 * walk.rows.count - 1) products.ready_chunk(begin + kChunkGroups);
      add_run<Rows>(walk, products, run / 2, run % 2, begin, end);
    }
  }
}

// Float sums can be in registers only if their number is known when this is compiled.
template <int Rows>
static void walk_rows(const Walk& walk) {
  if (walk.rows.height == Rows)
    walk_panel<Rows>(walk);
  else if constexpr (Rows > kMinRows)
    walk_rows<Rows - 1>(walk);
}

}  // namespace

void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row, int64_t num_rows,
                  float* out) {
  const bool worth_it = num_rows >= kMinRows && num_rows * (matrix.columns / kGroup) >= kMinWork;
  if (!worth_it || !can_ready_lines(matrix))
    return kAvx512Kernels.linear_panel(matrix, panel, in, first_row, num_rows, out);
  const RowTiles rows(num_rows);
  configure_tiles(rows.height);
  walk_rows<16>({matrix, panel, in, first_row, rows, out});
}

}  // namespace antiphon::ANTIPHON_AMX
