// The tile registers of AMX behind a few functions: what the kernel uses of the instructions, and nothing else.
//
// They are written as assembly, not with the compiler's intrinsics. Those take a register's number only as a literal,
// and gcc 12 tells the optimiser that _tile_loadconfig reads 8 of its 64 bytes and that _tile_loadd reads no memory,
// so that stores may move past both. Here whatever touches memory says so.
//
// ANTIPHON_EMULATE_TILES puts plain C++ in their place, for the tests: what only some machines can run is checked on
// all that have AVX-512. The namespace then has another name, so that both kinds can be linked into one program.
#pragma once
#include <cstdint>

#ifdef ANTIPHON_EMULATE_TILES
#define ANTIPHON_AMX emulated_amx
#else
#define ANTIPHON_AMX amx
#endif

namespace antiphon::ANTIPHON_AMX {

// What ldtilecfg reads: the shape of each of the 8 tiles. All that is not set must be zero.
struct alignas(64) TileConfig {
  uint8_t palette = 0;  // 1: 8 tiles of at most 16 rows of 64 bytes
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0 to 7, then reserved
  uint8_t rows[16] = {};        // likewise
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace antiphon::ANTIPHON_AMX

#ifdef ANTIPHON_EMULATE_TILES
#include "emulated_tiles.h"
#else

namespace antiphon::ANTIPHON_AMX {

static inline void load_config(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config) : "memory"); }
// All zeros if this thread has configured nothing.
static inline void store_config(TileConfig& config) { asm volatile("sttilecfg %0" : "=m"(config) : : "memory"); }

template <int Tile>
static inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
// Rows are `stride` bytes apart; the first is `Offset` bytes from the address.
template <int Tile, int Offset = 0>
static inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd %c3(%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile), "i"(Offset) : "memory");
}
// Every row is the same line: without an index register the stride is zero.
template <int Tile>
static inline void load_tile_of(const void* line) {
  asm volatile("tileloadd (%0), %%tmm%c1" : : "r"(line), "i"(Tile) : "memory");
}
template <int Tile, int Offset = 0>
static inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, %c3(%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile), "i"(Offset) : "memory");
}
// sum[row][channel] += rows[row][4 k + i] * lines[k][4 channel + i], as int32; rows are signed bytes, and so are lines
// or, in the second, they are unsigned.
template <int Sum, int Rows, int Lines>
static inline void add_signed_products() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Rows), "i"(Lines));
}
template <int Sum, int Rows, int Lines>
static inline void add_unsigned_products() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Rows), "i"(Lines));
}

}  // namespace antiphon::ANTIPHON_AMX
#endif
