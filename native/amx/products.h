// The tiles' half of a panel's product: exact integer sums, one tile of them after another, each a few steps before it
// is needed, so that the tiles work while the vector units scale what came before.
//
// A tile of sums is a block of rows of activations times 16 channels, half a panel, over one group. The tiles of one
// block of rows and one half over a block of groups are a run.
#pragma once
#include "lines.h"

namespace antiphon::ANTIPHON_AMX {

constexpr int64_t kTilesAhead = 4;  // tiles of sums at work: as many as there are registers for
constexpr int64_t kBlockGroups = 8;

// Activation rows in blocks of equal height, at most a tile's. The last may begin among the rows of the one before.
struct RowBlocks {
  int64_t num_rows, count, height;

  explicit RowBlocks(int64_t num_rows)
      : num_rows(num_rows), count((num_rows + 15) / 16), height((num_rows + count - 1) / count) {}
  int64_t first(int64_t block) const {
    const int64_t row = block * height;
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

// A sum begins at these bits, so that its own bits, read as a float, are kStart + the sum: exactly, as long as that is
// below 2^22, and it is at most 32 * 255 * 127.
constexpr int32_t kStartBits = 0x4B400000;
constexpr float kStart = 12582912.0f;  // 1.5 * 2^23

struct alignas(64) StartLine {
  int32_t sums[16];
  constexpr StartLine() : sums() {
    for (int32_t& sum : sums) sum = kStartBits;
  }
};
static constexpr StartLine kStartLine;

// What one call needs of the first-level cache.
struct alignas(64) Workspace {
  int32_t sums[2][16 * 16];                       // of even tiles and of odd ones
  uint8_t lines[2][kBlockGroups][2][kHalfBytes];  // of even blocks of groups and of odd ones
};

// Where a run's tiles come from: the first group's, and those of the next groups in steps that are always the same.
struct Run {
  const int8_t* activations;
  const uint8_t* lines;
};

// Begins the sums of a run's tile. Tiles 0 to 3 hold sums, one of 4 and 5 activations, one of 6 and 7 lines.
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
