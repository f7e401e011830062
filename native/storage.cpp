#include "storage.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "half.h"

namespace antiphon {
namespace {

constexpr StorageLayout kLayouts[] = {
    // in the order of StorageType
    {StorageType::kF32, "F32", 128, 1, 0, false},       {StorageType::kF16, "F16", 64, 1, 0, false},
    {StorageType::kBF16, "BF16", 64, 1, 0, false},      {StorageType::kQ4_0, "Q4_0", 18, 1, 4, false},
    {StorageType::kQ4_1, "Q4_1", 20, 1, 4, true},       {StorageType::kQ5_0, "Q5_0", 22, 1, 8, false},
    {StorageType::kQ5_1, "Q5_1", 24, 1, 8, true},       {StorageType::kQ8_0, "Q8_0", 34, 1, 8, false},
    {StorageType::kQ4_K, "Q4_K", 144, 8, 4, true},      {StorageType::kQ5_K, "Q5_K", 176, 8, 8, true},
    {StorageType::kQ6_K, "Q6_K", 210, 8, 0, false},     {StorageType::kIQ4_NL, "IQ4_NL", 18, 1, 8, false},
    {StorageType::kIQ4_XS, "IQ4_XS", 136, 8, 8, false}, {StorageType::kQ4_ZP, "Q4_ZP", 20, 1, 4, true},
};

// The 16 levels of IQ4_NL and IQ4_XS.
constexpr int8_t kNonlinearLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

uint16_t half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

float number_at(const uint8_t* bytes) { return half_to_float(half_at(bytes)); }

// 16 bytes: low nibbles are the first 16 codes, high nibbles the last.
void unpack_nibbles(const uint8_t* packed, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = packed[i] & 15;
    codes[i + 16] = packed[i] >> 4;
  }
}

// Q5_0, Q5_1: nibbles, and the fifth bits of all 32 in one word.
void unpack_fives(const uint8_t* high_bits, const uint8_t* packed, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, high_bits, sizeof bits);
  unpack_nibbles(packed, codes);
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (bits >> i & 1) << 4);
}

// Q4_K and Q5_K keep eight 6-bit scales and eight 6-bit minima in 12 bytes: the first four of each in the low six bits
// of a byte, the others' low four bits as nibbles, their high two above the first ones.
void unpack_k_scale(const uint8_t* packed, int64_t index, float* scale, float* min) {
  int sub_scale, sub_min;
  if (index < 4) {
    sub_scale = packed[index] & 63;
    sub_min = packed[index + 4] & 63;
  } else {
    sub_scale = (packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4;
    sub_min = (packed[index + 4] >> 4) | (packed[index] >> 6) << 4;
  }
  *scale *= static_cast<float>(sub_scale);
  *min *= -static_cast<float>(sub_min);
}

// Two successive groups share 32 bytes: one has the low nibbles, the other the high ones.
void unpack_k_nibbles(const uint8_t* packed, int64_t index, uint8_t* codes) {
  const uint8_t* bytes = packed + index / 2 * 32;
  for (int i = 0; i < 32; ++i) codes[i] = index % 2 ? bytes[i] >> 4 : bytes[i] & 15;
}

void decode_k(const StoredGroup& group, CodedGroup& out) {
  const bool five_bits = group.type == StorageType::kQ5_K;
  const uint8_t* block = group.block;
  out.scale = number_at(block);
  out.min = number_at(block + 2);
  unpack_k_scale(block + 4, group.index, &out.scale, &out.min);
  unpack_k_nibbles(block + (five_bits ? 48 : 16), group.index, out.codes);
  if (!five_bits) return;
  for (int i = 0; i < 32; ++i)
    out.codes[i] = static_cast<uint8_t>(out.codes[i] | (block[16 + i] >> group.index & 1) << 4);
}

void decode_nonlinear(const StoredGroup& group, CodedGroup& out) {
  const uint8_t* block = group.block;
  out.scale = number_at(block);
  out.zero_point = 128;
  const uint8_t* nibbles = block + 2;
  if (group.type == StorageType::kIQ4_XS) {
    const int low = block[4 + group.index / 2] >> (4 * (group.index % 2)) & 15;
    const int high = half_at(block + 2) >> (2 * group.index) & 3;
    out.scale *= static_cast<float>((low | high << 4) - 32);
    nibbles = block + 8 + 16 * group.index;
  }
  unpack_nibbles(nibbles, out.codes);
  for (uint8_t& code : out.codes) code = static_cast<uint8_t>(kNonlinearLevels[code] + 128);
}

// Six bits: nibbles in `low`, two more bits in `high`, and a scale for each 16 values.
void split_q6_k(const uint8_t* block, int64_t index, int8_t* codes, float* scales) {
  const int64_t half = index / 4, quarter = index % 4;  // a block is two halves of four groups
  const uint8_t* low = block + 64 * half + 32 * (quarter % 2);
  const uint8_t* high = block + 128 + 32 * half;
  const int8_t* sub_scales = reinterpret_cast<const int8_t*>(block + 192) + 8 * half + 2 * quarter;
  for (int i = 0; i < 32; ++i) {
    const int nibble = quarter < 2 ? low[i] & 15 : low[i] >> 4;
    codes[i] = static_cast<int8_t>((nibble | (high[i] >> (2 * quarter) & 3) << 4) - 32);
  }
  for (int i = 0; i < 2; ++i) scales[i] = number_at(block + 208) * static_cast<float>(sub_scales[i]);
}

void dequantize_q6_k(const uint8_t* block, int64_t index, float* values) {
  int8_t codes[32];
  float scales[2];
  split_q6_k(block, index, codes, scales);
  for (int i = 0; i < 32; ++i) values[i] = scales[i / 16] * static_cast<float>(codes[i]);
}

}  // namespace

const StorageLayout& storage_layout(StorageType type) { return kLayouts[static_cast<size_t>(type)]; }

StorageType storage_type(const std::string& name) {
  for (const StorageLayout& layout : kLayouts)
    if (name == layout.name) return layout.type;
  throw std::invalid_argument("tensor type " + name + " is not supported");
}

StoredMatrix stored_matrix(const uint8_t* data, size_t bytes, StorageType type, int64_t rows, int64_t columns) {
  constexpr int64_t kMost = int64_t{1} << 28;  // above any real size; products stay below any overflow
  const int64_t block = 32 * storage_layout(type).block_groups;
  if (rows <= 0 || columns <= 0 || rows > kMost || columns > kMost || columns % block != 0)
    throw std::invalid_argument("a matrix of " + std::to_string(rows) + " x " + std::to_string(columns) +
                                " cannot be read: columns must be a multiple of " + std::to_string(block));
  const StoredMatrix matrix{data, type, rows, columns};
  const size_t expected = static_cast<size_t>(rows) * matrix.row_bytes();
  if (bytes != expected)
    throw std::invalid_argument("a matrix of " + std::to_string(rows) + " x " + std::to_string(columns) + " needs " +
                                std::to_string(expected) + " bytes, not " + std::to_string(bytes));
  return matrix;
}

CodedGroup decode_group(const StoredGroup& group) {
  CodedGroup out;
  const uint8_t* block = group.block;
  out.scale = number_at(block);
  switch (group.type) {
    case StorageType::kQ4_0:
      out.zero_point = 8;
      unpack_nibbles(block + 2, out.codes);
      break;
    case StorageType::kQ4_1:
      out.min = number_at(block + 2);
      unpack_nibbles(block + 4, out.codes);
      break;
    case StorageType::kQ4_ZP:  // Q4_1's block, codes counted from the middle
      out.zero_point = 8;
      out.min = number_at(block + 2);
      unpack_nibbles(block + 4, out.codes);
      break;
    case StorageType::kQ5_0:
      out.zero_point = 16;
      unpack_fives(block + 2, block + 6, out.codes);
      break;
    case StorageType::kQ5_1:
      out.min = number_at(block + 2);
      unpack_fives(block + 4, block + 8, out.codes);
      break;
    case StorageType::kQ8_0:
      out.zero_point = 128;
      for (int i = 0; i < 32; ++i) out.codes[i] = block[2 + i] ^ 0x80;
      break;
    case StorageType::kQ4_K:
    case StorageType::kQ5_K: decode_k(group, out); break;
    case StorageType::kIQ4_NL:
    case StorageType::kIQ4_XS: decode_nonlinear(group, out); break;
    default: throw std::logic_error("this type has no codes");
  }
  return out;
}

void split_group(const StoredGroup& group, int8_t* codes, float* scales, float* mins) {
  mins[0] = mins[1] = 0.0f;
  if (group.type == StorageType::kQ6_K) return split_q6_k(group.block, group.index, codes, scales);
  const CodedGroup coded = decode_group(group);
  scales[0] = scales[1] = coded.scale;
  mins[0] = mins[1] = coded.min;
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<int8_t>(coded.codes[i] - coded.zero_point);
}

void dequantize_group(const StoredGroup& group, float* values) {
  const uint8_t* block = group.block;
  switch (group.type) {
    case StorageType::kF32: std::memcpy(values, block, 128); return;
    case StorageType::kF16:
      for (int i = 0; i < 32; ++i) values[i] = number_at(block + 2 * i);
      return;
    case StorageType::kBF16:
      for (int i = 0; i < 32; ++i) values[i] = bfloat_to_float(half_at(block + 2 * i));
      return;
    case StorageType::kQ6_K: dequantize_q6_k(block, group.index, values); return;
    default: {
      const CodedGroup coded = decode_group(group);
      for (int i = 0; i < 32; ++i)
        values[i] = coded.scale * static_cast<float>(coded.codes[i] - coded.zero_point) + coded.min;
    }
  }
}

bool row_is_finite(const StoredMatrix& matrix, int64_t row) {
  float values[32];
  float taint = 0.0f;  // zero times what is not finite is not a number
  for (int64_t g = 0; g < matrix.columns / 32; ++g) {
    dequantize_group(matrix.group(row, g), values);
    for (const float value : values) taint += value * 0.0f;
  }
  return taint == 0.0f;
}

}  // namespace antiphon
