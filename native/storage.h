// How checkpoints store weights: blocks of GGUF's types, read one group of 32 values at a time. Nothing here trusts a
// length: callers give a span, and a span that does not hold the matrix is refused.
//
// Source of the layouts: the GGUF specification and ggml's block definitions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace antiphon {

enum class StorageType { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ8_0 };

// Throws std::invalid_argument for a type that is not known.
StorageType storage_type(const std::string& name);

// Bytes of a group of 32 values.
size_t storage_group_bytes(StorageType type);

// A matrix as a checkpoint stores it, row by row.
struct StoredMatrix {
  const uint8_t* data = nullptr;
  StorageType type = StorageType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;

  size_t row_bytes() const { return static_cast<size_t>(columns) / 32 * storage_group_bytes(type); }
  const uint8_t* group(int64_t row, int64_t group) const {
    return data + static_cast<size_t>(row) * row_bytes() + static_cast<size_t>(group) * storage_group_bytes(type);
  }
};

// Throws std::invalid_argument unless columns is a multiple of 32 and `bytes` is exactly what the shape needs.
StoredMatrix stored_matrix(const uint8_t* data, size_t bytes, StorageType type, int64_t rows, int64_t columns);

// 32 values as float32.
void dequantize_group(StorageType type, const uint8_t* group, float* values);

// Whether all values of a row are finite numbers.
bool row_is_finite(const StoredMatrix& matrix, int64_t row);

}  // namespace antiphon
