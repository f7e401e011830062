// How checkpoints store weights: blocks of GGUF's types and one of ours, Q4_ZP, read one group of 32 values at a time.
// Nothing here trusts a length: callers give a span, and a span that does not hold the matrix is refused.
//
// Source of the layouts: the GGUF specification and ggml's block definitions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace antiphon {

enum class StorageType {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kQ4_ZP
};

struct StorageLayout {
  StorageType type;
  const char* name;  // GGUF's, but for Q4_ZP
  size_t block_bytes;
  int64_t block_groups;  // groups of 32 values in a block
  int32_t code_bits;     // of a code as CodedGroup holds it; 0: values, or two scales a group, which have no codes
  bool has_min;          // its groups are scale * (code - zero_point) + min
};

const StorageLayout& storage_layout(StorageType type);

// Throws std::invalid_argument for a type that is not known.
StorageType storage_type(const std::string& name);

// One group of 32 values: a block and the group's place in it.
struct StoredGroup {
  StorageType type;
  const uint8_t* block;
  int64_t index;
};

// A group of a quantized type. Its values are scale * (code - zero_point) + min; all types but Q4_ZP have one of the
// two.
struct CodedGroup {
  uint8_t codes[32];
  float scale = 0.0f;
  float min = 0.0f;
  int32_t zero_point = 0;
};

// A matrix as a checkpoint stores it, row by row.
struct StoredMatrix {
  const uint8_t* data = nullptr;
  StorageType type = StorageType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;

  size_t row_bytes() const {
    const StorageLayout& layout = storage_layout(type);
    return static_cast<size_t>(columns / (32 * layout.block_groups)) * layout.block_bytes;
  }
  StoredGroup group(int64_t row, int64_t group) const {
    const StorageLayout& layout = storage_layout(type);
    const uint8_t* block = data + static_cast<size_t>(row) * row_bytes() +
                           static_cast<size_t>(group / layout.block_groups) * layout.block_bytes;
    return {type, block, group % layout.block_groups};
  }
};

// Throws std::invalid_argument unless columns is a multiple of the type's block and of 32, and `bytes` is exactly what
// the shape needs.
StoredMatrix stored_matrix(const uint8_t* data, size_t bytes, StorageType type, int64_t rows, int64_t columns);

// The codes of a group whose type has them (StorageLayout::code_bits).
CodedGroup decode_group(const StoredGroup& group);

// The same for every type but floats, without the zero point: two halves of 16, each scale * code + min.
void split_group(const StoredGroup& group, int8_t* codes, float* scales, float* mins);

// 32 values as float32.
void dequantize_group(const StoredGroup& group, float* values);

// Whether all values of a row are finite numbers.
bool row_is_finite(const StoredMatrix& matrix, int64_t row);

}  // namespace antiphon
