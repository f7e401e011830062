// A panel's codes made ready for the tiles, a chunk of groups at a time: whole lines [group][half][8][64] in the
// first-level cache, whatever the format. Codes with a zero point lose it here and become signed, which costs one
// operation a line; correcting the products instead would cost one for every 16 of them.
#pragma once
#include <immintrin.h>

#include "../kernels.h"
#include "tiles.h"

namespace antiphon::ANTIPHON_AMX {

constexpr int64_t kChunkGroups = 8;  // groups made ready, then multiplied by all rows; two such chunks fit the cache
constexpr int64_t kLineBytes = 64;
constexpr int64_t kHalfBytes = 8 * kLineBytes;
constexpr int64_t kLinesBytes = 2 * kHalfBytes;  // of a group
constexpr int kMinusEight = 0xF8;

// The matrix of bits by which gf2p8affineqb takes one nibble, the one `shift` bits up, out of a byte: row i, at byte
// 7 - i, says which bits make bit i. Signed: bit 3 makes all from 3 up; xor with kMinusEight, and it is the nibble - 8.
constexpr uint64_t nibble_bits(int shift, bool is_signed) {
  uint64_t matrix = 0;
  for (int bit = 0; bit < 8; ++bit) {
    const int source = bit < 4 ? bit : 3;
    if (bit < 4 || is_signed) matrix |= uint64_t{1} << (shift + source) << 8 * (7 - bit);
  }
  return matrix;
}

template <bool Signed>
static inline void split_nibbles(const uint8_t* packed, int64_t num_lines, uint8_t* lines) {
  constexpr int kXor = Signed ? kMinusEight : 0;
  const __m512i low = _mm512_set1_epi64(static_cast<int64_t>(nibble_bits(0, Signed)));
  const __m512i high = _mm512_set1_epi64(static_cast<int64_t>(nibble_bits(4, Signed)));
  for (int64_t line = 0; line < num_lines; line += 4)  // of packed ones: 4 are half a group
    for (int64_t i = 0; i < 4; ++i) {
      const __m512i both = _mm512_loadu_si512(packed + kLineBytes * (line + i));
      uint8_t* to = lines + kLineBytes * (2 * line + i);
      _mm512_store_si512(to, _mm512_gf2p8affine_epi64_epi8(both, low, kXor));
      _mm512_store_si512(to + 4 * kLineBytes, _mm512_gf2p8affine_epi64_epi8(both, high, kXor));
    }
}

static inline void copy_lines(const uint8_t* packed, int64_t num_lines, bool is_signed, uint8_t* lines) {
  const __m512i flip = _mm512_set1_epi8(is_signed ? -128 : 0);  // the code - 128, as a signed byte
  for (int64_t line = 0; line < num_lines; ++line)
    _mm512_store_si512(lines + kLineBytes * line,
                       _mm512_xor_si512(_mm512_loadu_si512(packed + kLineBytes * line), flip));
}

// Whether ready_lines makes signed lines: where the codes have a zero point.
static inline bool has_signed_lines(const PackedView& matrix) { return matrix.zero_point != 0; }

static inline bool can_ready_lines(const PackedView& matrix) {
  return matrix.zero_point == 0 || matrix.zero_point == (matrix.format == WeightFormat::kW4 ? 8 : 128);
}

__attribute__((noinline)) static void ready_lines(const PackedView& matrix, const uint8_t* packed, int64_t num_groups,
                                                  uint8_t* lines) {
  const int64_t num_lines = num_groups * group_code_bytes(matrix.format) / kLineBytes;
  if (matrix.format == WeightFormat::kW8)
    copy_lines(packed, num_lines, has_signed_lines(matrix), lines);
  else if (has_signed_lines(matrix))
    split_nibbles<true>(packed, num_lines, lines);
  else
    split_nibbles<false>(packed, num_lines, lines);
}

}  // namespace antiphon::ANTIPHON_AMX
