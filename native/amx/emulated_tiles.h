// Tiles in plain C++, one set a thread, for tests: they do what tiles.h says, and end the program where the processor
// would fault. Included by tiles.h.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace antiphon::ANTIPHON_AMX {

struct EmulatedTile {
  uint8_t bytes[16][64];
};

struct EmulatedTiles {
  TileConfig config;
  EmulatedTile tiles[8];
};

inline thread_local EmulatedTiles emulated{};

static inline void fault_unless(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulated tiles: %s\n", what);
  std::abort();
}

static inline void load_config(const TileConfig& config) {
  fault_unless(reinterpret_cast<uintptr_t>(&config) % 64 == 0, "a configuration that is not aligned");  // ours alone
  fault_unless(config.palette <= 1 && config.start_row == 0, "palette or first row");
  for (const uint8_t byte : config.reserved) fault_unless(byte == 0, "a reserved byte");
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = config.rows[tile], row_bytes = config.row_bytes[tile];
    const bool exists = tile < 8 && config.palette == 1;
    fault_unless(rows <= (exists ? 16 : 0) && row_bytes <= (exists ? 64 : 0), "a tile's shape is beyond the palette's");
    fault_unless((rows == 0) == (row_bytes == 0), "half a shape");
  }
  emulated = {config, {}};
}

static inline void store_config(TileConfig& config) { config = emulated.config; }

static inline int rows_of(int tile) {
  fault_unless(emulated.config.palette == 1 && emulated.config.rows[tile] > 0, "a tile that is not configured");
  return emulated.config.rows[tile];
}
static inline int row_bytes_of(int tile) {
  rows_of(tile);
  return emulated.config.row_bytes[tile];
}

template <int Tile>
static inline void zero_tile() {
  rows_of(Tile);
  emulated.tiles[Tile] = {};
}

template <int Tile, int Offset = 0>
static inline void load_tile(const void* from, int64_t stride) {
  EmulatedTile loaded{};
  for (int row = 0; row < rows_of(Tile); ++row)
    __builtin_memcpy(loaded.bytes[row], static_cast<const uint8_t*>(from) + Offset + row * stride,
                     static_cast<size_t>(row_bytes_of(Tile)));
  emulated.tiles[Tile] = loaded;
}

template <int Tile>
static inline void load_tile_of(const void* line) {
  load_tile<Tile>(line, 0);
}

template <int Tile, int Offset = 0>
static inline void store_tile(void* to, int64_t stride) {
  for (int row = 0; row < rows_of(Tile); ++row)
    __builtin_memcpy(static_cast<uint8_t*>(to) + Offset + row * stride, emulated.tiles[Tile].bytes[row],
                     static_cast<size_t>(row_bytes_of(Tile)));
}

// All within tiles of full size, and most of what a test costs: the sanitizers need not look.
template <class Line>
__attribute__((no_sanitize("address", "undefined"))) static inline void add_row(const uint8_t* row,
                                                                                const EmulatedTile& lines, int columns,
                                                                                int channels, uint8_t* sums) {
  uint32_t totals[16];
  __builtin_memcpy(totals, sums, sizeof totals);
  for (int k = 0; k < columns; ++k)
    for (int channel = 0; channel < channels; ++channel) {
      const int product = static_cast<int8_t>(row[k]) * static_cast<Line>(lines.bytes[k / 4][4 * channel + k % 4]);
      totals[channel] += static_cast<uint32_t>(product);
    }
  __builtin_memcpy(sums, totals, sizeof totals);
}

template <class Line>  // int8_t or uint8_t: how a byte of the lines is read
static inline void emulate_products(int sum, int rows, int lines) {
  fault_unless(sum != rows && sum != lines && rows != lines, "one tile in two places of a product");
  fault_unless(row_bytes_of(rows) == 4 * rows_of(lines), "rows and lines differ in k");
  fault_unless(rows_of(sum) == rows_of(rows) && row_bytes_of(sum) == row_bytes_of(lines), "the sum's shape");
  fault_unless(row_bytes_of(sum) % 4 == 0, "a sum's row is not whole numbers");
  const int channels = row_bytes_of(sum) / 4, columns = row_bytes_of(rows);
  for (int row = 0; row < rows_of(sum); ++row)
    add_row<Line>(emulated.tiles[rows].bytes[row], emulated.tiles[lines], columns, channels,
                  emulated.tiles[sum].bytes[row]);
}

template <int Sum, int Rows, int Lines>
static inline void add_signed_products() {
  emulate_products<int8_t>(Sum, Rows, Lines);
}
template <int Sum, int Rows, int Lines>
static inline void add_unsigned_products() {
  emulate_products<uint8_t>(Sum, Rows, Lines);
}

}  // namespace antiphon::ANTIPHON_AMX
