// The vector units' part of the product: the integer sums of each tile are turned into floats, scaled and added, in the
// order of k, to float sums that stay in registers during a run. products.h has the tiles' part and says what a run is;
// docs/decisions/010-amx.md says why it is done this way. Nothing of the C++ standard library may be instantiated here;
// see ../avx512/kernels.cpp.
#include "linear_panel.h"

#include "../avx512/vector.h"
#include "products.h"

namespace antiphon::ANTIPHON_AMX {
namespace {

using avx512::load_half;

// One line of a tile of sums as floats, exactly.
__attribute__((always_inline)) static inline __m512 sums_of(const int32_t* line) {
  return _mm512_add_ps(_mm512_set1_ps(-kStart), _mm512_castsi512_ps(_mm512_load_si512(line)));
}

// out[row] += sums[row] * (the channels' scales * the row's), one fused multiply-add. The sums of two planes, both
// exact, become 256 * high + low by a fused multiply-add too, which rounds once, as a conversion of that integer does.
template <int Planes, int Rows>
__attribute__((always_inline)) static inline void add_scaled(__m512 (&out)[Rows], const int32_t* sums, __m512 scales,
                                                             const float* row_scales) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
    const int32_t* line = sums + 16 * Planes * row;
    const __m512 sum =
        Planes == 2 ? _mm512_fmadd_ps(sums_of(line), _mm512_set1_ps(256.0f), sums_of(line + 16)) : sums_of(line);
    out[row] = _mm512_fmadd_ps(sum, _mm512_mul_ps(scales, _mm512_set1_ps(row_scales[row])), out[row]);
  }
}

// out[row] += the channels' minima * (the row's scale * the sum of its codes), one fused multiply-add.
template <int Rows>
__attribute__((always_inline)) static inline void add_mins(__m512 (&out)[Rows], __m512 mins, const float* row_scales,
                                                           const int32_t* row_sums) {
  alignas(64) float offsets[16];
  constexpr auto kAllRows = static_cast<__mmask16>((1u << Rows) - 1u);
  const __m512 sums = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(kAllRows, row_sums));
  _mm512_store_ps(offsets, _mm512_mul_ps(_mm512_maskz_loadu_ps(kAllRows, row_scales), sums));
  asm("" : "+m"(offsets));  // else gcc broadcasts by permutations, which the vector units, the bound, would have to do
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) out[row] = _mm512_fmadd_ps(mins, _mm512_set1_ps(offsets[row]), out[row]);
}

// The groups that are multiplied on tiles: whole fours. AVX-512 multiplies the rest.
static inline int64_t whole_groups(const PackedView& matrix) {
  return matrix.columns / kGroup / kTilesAhead * kTilesAhead;
}

// The halves of a panel that one call multiplies.
struct Halves {
  int64_t first, end;
};

// One call: a panel or half of one, times rows of activations, `Rows` of them a tile.
template <int Planes, int Rows, bool HasMins>
class Walk {
 public:
  Walk(const PackedView& matrix, int64_t panel, Halves halves, const QuantizedRows& in, int64_t first_row,
       const RowTiles& rows, float* out, Workspace& workspace)
      : codes_(matrix, panel),
        groups_(whole_groups(matrix)),
        scales_(matrix.scales + panel * (matrix.columns / kGroup) * kPanel),
        mins_(HasMins ? matrix.mins + panel * (matrix.columns / kGroup) * kPanel : nullptr),
        capacity_(in.capacity),
        activations_(in.codes + first_row * kRowBytes),
        row_scales_(in.scales + first_row),
        row_sums_(in.sums + first_row),
        halves_(halves),
        rows_(rows),
        out_(out),
        workspace_(workspace) {}

  void run() const {
    begin();
    for (int64_t group = 0; group < groups_; group += kChunkGroups)
      for (int64_t tile = 0; tile < rows_.count; ++tile)
        for (int64_t half = halves_.first; half < halves_.end; ++half) {
          const int64_t after = tile == 0 ? groups_ - group - kChunkGroups : 0;  // groups to prepare meanwhile
          if (groups_ - group < kChunkGroups)
            add_run<kShortChunk, 0>(group, tile, half);
          else if (after >= kChunkGroups)
            add_run<kChunkGroups, kChunkGroups>(group, tile, half);
          else if (after > 0)
            add_run<kChunkGroups, kShortChunk>(group, tile, half);
          else
            add_run<kChunkGroups, 0>(group, tile, half);
        }
  }

 private:
  static constexpr int kShortChunk = kChunkGroups / 2;   // the last one, where groups are no whole chunks
  static constexpr int64_t kRowBytes = kGroup * Planes;  // of a row of activations

  Run run_at(int64_t group, int64_t tile, int64_t half) const {
    return {activations_ + (group * capacity_ + rows_.first(tile)) * kRowBytes,
            workspace_.lines[group / kChunkGroups % 2][0][half]};
  }
  Run run_after(int64_t group, int64_t tile, int64_t half) const {
    if (half + 1 < halves_.end) return run_at(group, tile, half + 1);
    if (tile + 1 < rows_.count) return run_at(group, tile + 1, halves_.first);
    return run_at(group + kChunkGroups < groups_ ? group + kChunkGroups : 0, 0,
                  halves_.first);  // after the last run: any, its sums are not used
  }

  // Prepares the first chunk of lines and starts the first tiles.
  void begin() const {
    for (int64_t group = 0; group < kChunkGroups && group < groups_; ++group)
      for (int64_t half = halves_.first; half < halves_.end; ++half) prepare(group, half);
    const Run first = run_at(0, 0, halves_.first);
    const int64_t stride = capacity_ * kRowBytes;
    make_sums<0>(first.activations, first.lines, codes_.is_signed);
    make_sums<1>(first.activations + stride, first.lines, codes_.is_signed);
    make_sums<2>(first.activations + 2 * stride, first.lines, codes_.is_signed);
    make_sums<3>(first.activations + 3 * stride, first.lines, codes_.is_signed);
    store_sums<0>(workspace_);
  }

  // Prepares the lines of half a group.
  __attribute__((always_inline)) void prepare(int64_t group, int64_t half) const {
    codes_.prepare(2 * group + half, workspace_.lines[group / kChunkGroups % 2][group % kChunkGroups][half]);
  }

  // Prefetches what is needed kFetchAhead groups later: codes of half a group, and the group's scales or minima.
  __attribute__((always_inline)) void prefetch(int64_t group, int64_t half) const {
    codes_.prefetch(2 * group + half);
    const int64_t at = (group + Codes::kFetchAhead) * kPanel;
    if (half == halves_.first) _mm_prefetch(reinterpret_cast<const char*>(scales_ + at), _MM_HINT_T0);
    if (HasMins && half + 1 == halves_.end) _mm_prefetch(reinterpret_cast<const char*>(mins_ + at), _MM_HINT_T0);
  }

  // What the steps of a run need. Copied into locals, which the compiler keeps in registers: it has to assume that the
  // store of a tile changes any member of this object.
  struct Cursor {
    const int8_t* activations;  // of the tile that is started next
    int64_t activations_stride;
    const uint16_t* scales;  // of the first tile's channels
    const uint16_t* mins;
    const float* row_scales;  // of the tile that is added next
    const int32_t* row_sums;
    int64_t capacity;
    Workspace* workspace;
    bool is_signed;
  };

  // Adds up a run, whose first tiles were started by the run before, and starts the first tiles of the next run.
  template <int Groups, int Prepared>
  __attribute__((noinline)) void add_run(int64_t group, int64_t tile, int64_t half) const {
    const int64_t first = rows_.first(tile), at = group * capacity_ + first, channel = group * kPanel + half * 16;
    const Run here = run_at(group, tile, half), next = run_after(group, tile, half);
    Cursor cursor{(Groups > kTilesAhead ? here : next).activations +
                      (Groups > kTilesAhead ? kTilesAhead : 0) * capacity_ * kRowBytes,
                  capacity_ * kRowBytes,
                  scales_ + channel,
                  HasMins ? mins_ + channel : nullptr,
                  row_scales_ + at,
                  row_sums_ + at,
                  capacity_,
                  &workspace_,
                  codes_.is_signed};
    float* out = out_ + first * kPanel + half * 16;
    __m512 sums[Rows];
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) sums[row] = _mm512_loadu_ps(out + kPanel * row);
    add_tiles<0, Groups, Prepared>(sums, cursor, here.lines, next, group, half, tile == 0);
    const int64_t done = tile * Rows - first;  // rows that the tile before has added
    if (done == 0) {
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row) _mm512_storeu_ps(out + kPanel * row, sums[row]);
    } else {
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row)
        if (row >= done) _mm512_storeu_ps(out + kPanel * row, sums[row]);
    }
  }

  template <int Tile, int Groups, int Prepared>
  __attribute__((always_inline)) void add_tiles(__m512 (&sums)[Rows], Cursor& at, const uint8_t* lines, const Run& next,
                                                int64_t group, int64_t half, bool prefetches) const {
    if constexpr (Tile < Groups) {
      constexpr int kMade = Tile + kTilesAhead;
      if constexpr (kMade == Groups) at.activations = next.activations;
      make_sums<kMade % Groups>(at.activations, kMade < Groups ? lines : next.lines, at.is_signed);
      at.activations += at.activations_stride;
      store_sums<Tile + 1>(*at.workspace);
      if (prefetches) prefetch(group + Tile, half);
      if constexpr (Tile < Prepared) prepare(group + kChunkGroups + Tile, half);
      const __m512 scales = load_half(at.scales + Tile * kPanel);
      add_scaled<Planes, Rows>(sums, at.workspace->sums[Tile % 2], scales, at.row_scales);
      if constexpr (HasMins) add_mins<Rows>(sums, load_half(at.mins + Tile * kPanel), at.row_scales, at.row_sums);
      at.row_scales += at.capacity;
      at.row_sums += at.capacity;
      asm volatile("" : "+r"(at.activations), "+r"(at.row_scales));
      add_tiles<Tile + 1, Groups, Prepared>(sums, at, lines, next, group, half, prefetches);
    }
  }

  const Codes codes_;
  const int64_t groups_;
  const uint16_t* const scales_;
  const uint16_t* const mins_;
  const int64_t capacity_;
  const int8_t* const activations_;
  const float* const row_scales_;
  const int32_t* const row_sums_;
  const Halves halves_;
  const RowTiles rows_;
  float* const out_;
  Workspace& workspace_;
};

constexpr int kLeastHeight = 9;  // in lines, of the tiles of 17 rows
static_assert(least_rows(WeightFormat::kW4) >= kLeastHeight && least_rows(WeightFormat::kW8) >= kLeastHeight);

// Float sums can be in registers only if their number is known when this is compiled.
template <int Planes, int Rows>
static void walk_rows(const PackedView& matrix, int64_t panel, Halves halves, const QuantizedRows& in,
                      int64_t first_row, const RowTiles& rows, float* out) {
  if (rows.height == Rows) {
    Workspace workspace;
    if (matrix.mins)
      Walk<Planes, Rows, true>(matrix, panel, halves, in, first_row, rows, out, workspace).run();
    else
      Walk<Planes, Rows, false>(matrix, panel, halves, in, first_row, rows, out, workspace).run();
  } else if constexpr (Planes * (Rows - 1) >= kLeastHeight) {
    walk_rows<Planes, Rows - 1>(matrix, panel, halves, in, first_row, rows, out);
  }
}

// AVX-512's kernel.
static void multiply_by_vectors(const PackedView& matrix, int64_t panel, Halves halves, const QuantizedRows& in,
                                int64_t first_row, int64_t num_rows, float* out) {
  if (halves.end - halves.first == 2)
    kAvx512Kernels.linear_panel(matrix, panel, in, first_row, num_rows, out);
  else
    kAvx512Kernels.linear_half_panel(matrix, panel, halves.first, in, first_row, num_rows, out);
}

// The groups from `begin` on, by AVX-512's kernel, as a matrix of one panel.
static void multiply_rest(const PackedView& matrix, int64_t panel, Halves halves, const QuantizedRows& in,
                          int64_t begin, int64_t first_row, int64_t num_rows, float* out) {
  const int64_t at = panel * (matrix.columns / kGroup) + begin;
  PackedView rest = matrix;
  rest.rows = kPanel;
  rest.columns -= begin * kGroup;
  rest.codes += at * group_code_bytes(matrix.format);
  rest.scales += at * kPanel;
  if (rest.mins) rest.mins += at * kPanel;
  QuantizedRows rows = in;
  rows.codes += begin * in.capacity * in.planes * kGroup;
  rows.scales += begin * in.capacity;
  rows.sums += begin * in.capacity;
  multiply_by_vectors(rest, 0, halves, rows, first_row, num_rows, out);
}

static void multiply(const PackedView& matrix, int64_t panel, Halves halves, const QuantizedRows& in, int64_t first_row,
                     int64_t num_rows, float* out) {
  const int64_t groups = whole_groups(matrix);
  const bool worth_it = num_rows * in.planes >= least_rows(matrix.format) && groups >= kLeastGroups &&
                        matrix.fetch_bytes == PackedView::kNextGroups;  // the others are attention's
  if (!worth_it || !can_prepare_lines(matrix))
    return multiply_by_vectors(matrix, panel, halves, in, first_row, num_rows, out);
  const RowTiles rows(num_rows, in.planes);
  configure_tiles(rows.height * in.planes);
  if (in.planes == 2)
    walk_rows<2, 8>(matrix, panel, halves, in, first_row, rows, out);
  else
    walk_rows<1, 16>(matrix, panel, halves, in, first_row, rows, out);
  if (groups * kGroup < matrix.columns) multiply_rest(matrix, panel, halves, in, groups, first_row, num_rows, out);
}

}  // namespace

void linear_panel(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row, int64_t num_rows,
                  float* out) {
  multiply(matrix, panel, {0, 2}, in, first_row, num_rows, out);
}

void linear_half_panel(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                       int64_t first_row, int64_t num_rows, float* out) {
  multiply(matrix, panel, {half, half + 1}, in, first_row, num_rows, out);
}

}  // namespace antiphon::ANTIPHON_AMX
