// The tiles' half of a panel's product: exact integer sums, one tile of them after another, each a few steps before it
// is asked for, so that the tiles work while the vector units scale what came before.
//
// A tile of sums is some rows of activations times 16 channels over one group. Tiles come in the order of the walk:
// chunks of groups; in a chunk, runs of one tile of rows and one half of the panel; in a run, the chunk's groups.
#pragma once
#include "lines.h"

namespace antiphon::ANTIPHON_AMX {

// Activation rows in tiles of equal height. The last tile may overlap the one before.
struct RowTiles {
  int64_t num_rows, count, height;

  explicit RowTiles(int64_t num_rows)
      : num_rows(num_rows), count((num_rows + 15) / 16), height((num_rows + count - 1) / count) {}
  int64_t first(int64_t tile) const {
    const int64_t row = tile * height;
    return row + height <= num_rows ? row : num_rows - height;
  }
};

// Tiles 0 to 3 hold sums, one of 4 and 5 activations, one of 6 and 7 lines of weights.
static inline void configure_tiles(int64_t height) {
  TileConfig wanted, found;
  wanted.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    wanted.rows[tile] = static_cast<uint8_t>(tile < 6 ? height : 8);
    wanted.row_bytes[tile] = tile == 4 || tile == 5 ? kGroup : kLineBytes;
  }
  // Loading is slow, and nobody can say what else has used the tiles of this thread: ask.
  store_config(found);
  if (__builtin_memcmp(&wanted, &found, sizeof wanted) != 0) load_config(wanted);
}

// What one call needs of the first-level cache.
struct Workspace {
  alignas(64) int32_t sums[2][16 * 16];
  alignas(64) uint8_t lines[2][kChunkGroups * kLinesBytes];  // of even chunks and of odd ones
};

// Its members should live in registers through the innermost loop: hence the buffers are elsewhere, and all that the
// loop calls is inlined.
class Products {
 public:
  static constexpr int64_t kFetchAhead = 2 * kChunkGroups;  // groups

  Products(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row, const RowTiles& rows,
           Workspace& workspace)
      : matrix_(matrix),
        groups_(matrix.columns / kGroup),
        first_panel_group_(panel * groups_),
        activations_(in.codes + first_row * kGroup),
        activations_stride_(in.capacity * kGroup),
        rows_(rows),
        signed_(has_signed_lines(matrix)),
        workspace_(workspace) {}

  // Readies the first chunk and makes the first tiles.
  __attribute__((always_inline)) void start() {
    for (int64_t group = 0; group < kFetchAhead; ++group)
      for (int64_t half = 0; half < 2; ++half) fetch(group, half);
    ready_chunk(0);
    enter_run();
    make<0>();
    make<1>();
    make<2>();
    make<3>();
    store_tile<0>(workspace_.sums[0], kLineBytes);
  }

  // Sends half a group's codes on their way to the second-level cache, and its scales or its minima.
  __attribute__((always_inline)) void fetch(int64_t group, int64_t half) const {
    if (group >= groups_) return;
    const int64_t bytes = group_code_bytes(matrix_.format) / 2;
    const char* codes = reinterpret_cast<const char*>(codes_of(group)) + half * bytes + matrix_.ahead;
    for (int64_t at = 0; at < bytes; at += kLineBytes) _mm_prefetch(codes + at, _MM_HINT_T1);
    const uint16_t* halves = half == 0 ? matrix_.scales : matrix_.mins;
    if (halves)
      _mm_prefetch(reinterpret_cast<const char*>(halves + (first_panel_group_ + group) * kPanel), _MM_HINT_T0);
  }

  // To be called before the last run of the chunk before, since tiles are made ahead of their use.
  void ready_chunk(int64_t first_group) const {
    if (first_group < groups_)
      ready_lines(matrix_, codes_of(first_group), groups_in_chunk(first_group), lines_of(first_group));
  }

  int64_t groups_in_chunk(int64_t first_group) const {
    return groups_ - first_group < kChunkGroups ? groups_ - first_group : kChunkGroups;
  }

  // The next tile of sums, [height][16]; valid until the next call. It was stored a step ago; now the tile after it is
  // stored, and the one 4 on begins.
  __attribute__((always_inline)) const int32_t* next() {
    const unsigned step = step_++ % 4;
    switch (step) {
      case 0: advance<0>(); break;
      case 1: advance<1>(); break;
      case 2: advance<2>(); break;
      default: advance<3>(); break;
    }
    return workspace_.sums[step % 2];
  }

 private:
  template <int Tile>
  __attribute__((always_inline)) void advance() {
    make<Tile>();
    constexpr int kNext = (Tile + 1) % 4;
    store_tile<kNext>(workspace_.sums[kNext % 2], kLineBytes);  // after the last tile: an old one, to no effect
  }

  template <int Tile>
  __attribute__((always_inline)) void make() {
    if (left_in_run_ == 0) return;  // the walk is over
    zero_tile<Tile>();
    load_tile<4 + Tile % 2>(next_activations_, kGroup);
    load_tile<6 + Tile % 2>(next_lines_, kLineBytes);
    if (signed_)
      add_signed_products<Tile, 4 + Tile % 2, 6 + Tile % 2>();
    else
      add_unsigned_products<Tile, 4 + Tile % 2, 6 + Tile % 2>();
    next_activations_ += activations_stride_;
    next_lines_ += kLinesBytes;
    if (--left_in_run_ == 0) leave_run();
  }

  __attribute__((always_inline)) void leave_run() {
    half_ ^= 1;
    if (half_ == 0 && ++row_tile_ == rows_.count) {
      row_tile_ = 0;
      first_group_ += kChunkGroups;
    }
    if (first_group_ < groups_) enter_run();
  }

  __attribute__((always_inline)) void enter_run() {
    left_in_run_ = groups_in_chunk(first_group_);
    next_activations_ = activations_ + first_group_ * activations_stride_ + rows_.first(row_tile_) * kGroup;
    next_lines_ = lines_of(first_group_) + half_ * kHalfBytes;
  }

  const uint8_t* codes_of(int64_t group) const {
    return matrix_.codes + (first_panel_group_ + group) * group_code_bytes(matrix_.format);
  }
  uint8_t* lines_of(int64_t first_group) const { return workspace_.lines[first_group / kChunkGroups % 2]; }

  const PackedView& matrix_;
  const int64_t groups_;
  const int64_t first_panel_group_;  // of the panel, among the matrix' groups
  const int8_t* const activations_;
  const int64_t activations_stride_;  // bytes from a group to the next
  const RowTiles rows_;
  const bool signed_;
  Workspace& workspace_;

  // The run of which tiles are made, and how far that is.
  int64_t first_group_ = 0, row_tile_ = 0, half_ = 0, left_in_run_ = 0;
  const int8_t* next_activations_ = nullptr;
  const uint8_t* next_lines_ = nullptr;
  unsigned step_ = 0;
};

}  // namespace antiphon::ANTIPHON_AMX
