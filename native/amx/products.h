// The tiles' part of a panel's product: exact integer sums. Each tile of sums is started a few steps before it is
// needed, so that the tile unit multiplies while the vector units scale earlier sums.
//
// A tile of sums is a tile of rows of activations times 16 channels, half a panel, over one group. A run is the tiles
// of one tile of rows and one half, over a chunk of groups.
#pragma once
#include "lines.h"

namespace antiphon::ANTIPHON_AMX {

constexpr int64_t kTilesAhead = 4;  // tiles of sums in progress: one for each register that holds sums
constexpr int64_t kChunkGroups = 8;

// Activation rows in tiles of equal height. The last tile may overlap the one before it. With two planes a row takes
// two lines of a tile.
struct RowTiles {
  int64_t num_rows, count, height;

  RowTiles(int64_t num_rows, int64_t planes)
      : num_rows(num_rows), count((num_rows * planes + 15) / 16), height((num_rows + count - 1) / count) {}
  int64_t first(int64_t tile) const {
    const int64_t row = tile * height;
    return row + height <= num_rows ? row : num_rows - height;
  }
};

// Registers 0 to 3 hold sums, 4 and 5 activations, both of `height` lines, 6 and 7 lines of weights.
static inline void configure_tiles(int64_t height) {
  TileConfig wanted, found;
  wanted.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    wanted.rows[tile] = static_cast<uint8_t>(tile < 6 ? height : 8);
    wanted.row_bytes[tile] = tile == 4 || tile == 5 ? kGroup : kLineBytes;
  }
  // Loading takes over 200 cycles and asking 20, and other code of this thread may have changed the configuration.
  store_config(found);
  if (__builtin_memcmp(&wanted, &found, sizeof wanted) != 0) load_config(wanted);
}

// Sums start at these bits instead of zero. The bits of a sum, read as a float, are then exactly kStart + the sum, as
// long as the sum is below 2^22 (it is at most 32 * 255 * 127). One subtraction gives the sum as a float. A conversion
// would need the multiplier of port 0, the only one that works while tiles are in use; a subtraction does not.
constexpr int32_t kStartBits = 0x4B400000;
constexpr float kStart = 12582912.0f;  // 1.5 * 2^23

struct alignas(64) StartLine {
  int32_t sums[16];
  constexpr StartLine() : sums() {
    for (int32_t& sum : sums) sum = kStartBits;
  }
};
static constexpr StartLine kStartLine;

// Buffers of one call, all in the first-level cache.
struct alignas(64) Workspace {
  int32_t sums[2][16 * 16];                       // of even tiles and of odd tiles
  uint8_t lines[2][kChunkGroups][2][kHalfBytes];  // of even chunks of groups and of odd chunks
};

// The operands of a run's first tile; those of the next groups follow at fixed distances.
struct Run {
  const int8_t* activations;
  const uint8_t* lines;
};

// Starts the sums of tile `Tile` of a run. `lines` are those of its first tile.
template <int Tile>
__attribute__((always_inline)) static inline void make_sums(const int8_t* activations, const uint8_t* lines,
                                                            bool is_signed) {
  constexpr int kSums = Tile % 4, kRows = 4 + Tile % 2, kLines = 6 + Tile % 2;
  load_tile_of<kSums>(kStartLine.sums);
  load_tile<kRows>(activations, kGroup);
  load_tile<kLines, Tile * kLinesBytes>(lines, kLineBytes);
  if (is_signed)
    add_signed_products<kSums, kRows, kLines>();
  else
    add_unsigned_products<kSums, kRows, kLines>();
}

template <int Tile>
__attribute__((always_inline)) static inline void store_sums(Workspace& workspace) {
  store_tile<Tile % 4>(workspace.sums[Tile % 2], kLineBytes);
}

}  // namespace antiphon::ANTIPHON_AMX
