#include "storage.h"

#include <cstring>
#include <stdexcept>

#include "half.h"

namespace antiphon {
namespace {

uint16_t half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

}  // namespace

StorageType storage_type(const std::string& name) {
  if (name == "F32") return StorageType::kF32;
  if (name == "F16") return StorageType::kF16;
  if (name == "BF16") return StorageType::kBF16;
  if (name == "Q4_0") return StorageType::kQ4_0;
  if (name == "Q4_1") return StorageType::kQ4_1;
  if (name == "Q8_0") return StorageType::kQ8_0;
  throw std::invalid_argument("tensor type " + name + " is not supported");
}

size_t storage_group_bytes(StorageType type) {
  switch (type) {
    case StorageType::kF32: return 128;
    case StorageType::kF16: return 64;
    case StorageType::kBF16: return 64;
    case StorageType::kQ4_0: return 18;
    case StorageType::kQ4_1: return 20;
    case StorageType::kQ8_0: return 34;
  }
  return 0;
}

StoredMatrix stored_matrix(const uint8_t* data, size_t bytes, StorageType type, int64_t rows, int64_t columns) {
  constexpr int64_t kMost = int64_t{1} << 28;  // above any real size; products stay below any overflow
  if (rows <= 0 || columns <= 0 || rows > kMost || columns > kMost || columns % 32 != 0)
    throw std::invalid_argument("a matrix of " + std::to_string(rows) + " x " + std::to_string(columns) +
                                " cannot be read: columns must be a multiple of 32");
  const StoredMatrix matrix{data, type, rows, columns};
  const size_t expected = static_cast<size_t>(rows) * matrix.row_bytes();
  if (bytes != expected)
    throw std::invalid_argument("a matrix of " + std::to_string(rows) + " x " + std::to_string(columns) + " needs " +
                                std::to_string(expected) + " bytes, not " + std::to_string(bytes));
  return matrix;
}

void dequantize_group(StorageType type, const uint8_t* group, float* values) {
  switch (type) {
    case StorageType::kF32: std::memcpy(values, group, 128); return;
    case StorageType::kF16:
      for (int i = 0; i < 32; ++i) values[i] = half_to_float(half_at(group + 2 * i));
      return;
    case StorageType::kBF16:
      for (int i = 0; i < 32; ++i) values[i] = bfloat_to_float(half_at(group + 2 * i));
      return;
    case StorageType::kQ4_0: {
      const float scale = half_to_float(half_at(group));
      for (int i = 0; i < 16; ++i) {
        values[i] = scale * static_cast<float>((group[2 + i] & 15) - 8);
        values[i + 16] = scale * static_cast<float>((group[2 + i] >> 4) - 8);
      }
      return;
    }
    case StorageType::kQ4_1: {
      const float scale = half_to_float(half_at(group)), least = half_to_float(half_at(group + 2));
      for (int i = 0; i < 16; ++i) {
        values[i] = scale * static_cast<float>(group[4 + i] & 15) + least;
        values[i + 16] = scale * static_cast<float>(group[4 + i] >> 4) + least;
      }
      return;
    }
    case StorageType::kQ8_0: {
      const float scale = half_to_float(half_at(group));
      for (int i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(static_cast<int8_t>(group[2 + i]));
      return;
    }
  }
}

bool row_is_finite(const StoredMatrix& matrix, int64_t row) {
  float values[32];
  float taint = 0.0f;  // zero times what is not finite is not a number
  for (int64_t g = 0; g < matrix.columns / 32; ++g) {
    dequantize_group(matrix.type, matrix.group(row, g), values);
    for (const float value : values) taint += value * 0.0f;
  }
  return taint == 0.0f;
}

}  // namespace antiphon
