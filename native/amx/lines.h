// Prepares a panel's codes for the tiles, one half of a group at a time: 8 lines of 64 bytes in the first-level cache,
// whatever the format. The zero point of codes is subtracted here, which makes them signed and costs one operation a
// line; subtracting it from the products would cost one for every 16 of them.
#pragma once
#include <immintrin.h>

#include "../kernels.h"
#include "tiles.h"

namespace antiphon::ANTIPHON_AMX {

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
__attribute__((always_inline)) static inline void split_nibbles(const uint8_t* packed, uint8_t* lines) {
  constexpr int kXor = Signed ? kMinusEight : 0;
  const __m512i low = _mm512_set1_epi64(static_cast<int64_t>(nibble_bits(0, Signed)));
  const __m512i high = _mm512_set1_epi64(static_cast<int64_t>(nibble_bits(4, Signed)));
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    const __m512i both = _mm512_loadu_si512(packed + kLineBytes * i);
    _mm512_store_si512(lines + kLineBytes * i, _mm512_gf2p8affine_epi64_epi8(both, low, kXor));
    _mm512_store_si512(lines + kLineBytes * (i + 4), _mm512_gf2p8affine_epi64_epi8(both, high, kXor));
  }
}

__attribute__((always_inline)) static inline void copy_lines(const uint8_t* packed, bool is_signed, uint8_t* lines) {
  const __m512i flip = _mm512_set1_epi8(is_signed ? -128 : 0);  // the code - 128, as a signed byte
#pragma GCC unroll 8
  for (int64_t line = 0; line < 8; ++line)
    _mm512_store_si512(lines + kLineBytes * line,
                       _mm512_xor_si512(_mm512_loadu_si512(packed + kLineBytes * line), flip));
}

// Prepared lines are signed where the codes have a zero point, unsigned where they count from zero.
static inline bool has_signed_lines(const PackedView& matrix) { return matrix.zero_point != 0; }

static inline bool can_prepare_lines(const PackedView& matrix) {
  return matrix.zero_point == 0 || matrix.zero_point == (matrix.format == WeightFormat::kW4 ? 8 : 128);
}

// The codes of one panel.
struct Codes {
  static constexpr int64_t kFetchAhead = 24;  // groups

  const uint8_t* codes;
  int64_t half_bytes;  // of half a group
  WeightFormat format;
  bool is_signed;

  Codes(const PackedView& matrix, int64_t panel)
      : half_bytes(group_code_bytes(matrix.format) / 2), format(matrix.format), is_signed(has_signed_lines(matrix)) {
    codes = matrix.codes + panel * (matrix.columns / kGroup) * 2 * half_bytes;
  }

  // Prepares the 8 lines of a half of a group; halves are counted through the panel.
  __attribute__((always_inline)) void prepare(int64_t half, uint8_t* lines) const {
    const uint8_t* packed = codes + half * half_bytes;
    if (format == WeightFormat::kW8)
      copy_lines(packed, is_signed, lines);
    else if (is_signed)
      split_nibbles<true>(packed, lines);
    else
      split_nibbles<false>(packed, lines);
  }

  // Prefetches codes of half a group, kFetchAhead groups later, into the second-level cache.
  __attribute__((always_inline)) void prefetch(int64_t half) const {
    const char* packed = reinterpret_cast<const char*>(codes + (half + 2 * kFetchAhead) * half_bytes);
    for (int64_t line = 0; line < 4; ++line) _mm_prefetch(packed + line * kLineBytes, _MM_HINT_T1);
    if (format == WeightFormat::kW8)
      for (int64_t line = 4; line < 8; ++line) _mm_prefetch(packed + line * kLineBytes, _MM_HINT_T1);
  }
};

}  // namespace antiphon::ANTIPHON_AMX
