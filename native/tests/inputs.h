// Inputs that several tests share: weights as a checkpoint stores them, and activations in buffers of exactly their
// size, so that the address sanitizer sees every step beyond.
#pragma once
#include <string>
#include <vector>

#include "check.h"
#include "half.h"
#include "kernels.h"
#include "storage.h"

namespace antiphon::tests {

constexpr const char* kTypes[] = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"};

inline size_t group_bytes(const std::string& type) {  // of 32 values
  if (type == "F32") return 128;
  if (type == "Q8_0") return 34;
  if (type == "Q4_0") return 18;
  return type == "Q4_1" ? 20 : 64;
}

// Random sound weights: any codes, and scales or values of ordinary size.
inline std::vector<uint8_t> weights(Random& random, const std::string& type, int64_t rows, int64_t columns) {
  const size_t bytes = group_bytes(type);
  std::vector<uint8_t> data = random.bytes(static_cast<size_t>(rows * columns / 32) * bytes);
  for (size_t group = 0; group < data.size(); group += bytes) {
    const bool quantized = type[0] == 'Q';
    for (size_t at = group; at < group + (quantized ? (type == "Q4_1" ? 4 : 2) : bytes);) {
      const float value = random.real(2.0f);
      const uint32_t bits = float_to_bits(value);
      const uint16_t half = type == "BF16" ? static_cast<uint16_t>(bits >> 16) : float_to_half(value);
      std::memcpy(data.data() + at, type == "F32" ? static_cast<const void*>(&bits) : &half, type == "F32" ? 4 : 2);
      at += type == "F32" ? 4 : 2;
    }
  }
  return data;
}

// Quantized activations with room for `capacity` rows.
struct Activations {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  int64_t capacity, parts;

  Activations(int64_t width, int64_t capacity, int64_t parts = 1)
      : codes(static_cast<size_t>(width * capacity)),
        scales(codes.size() / 32),
        sums(codes.size() / 32),
        capacity(capacity),
        parts(parts) {}
  QuantizedRows view() { return {codes.data(), scales.data(), sums.data(), capacity, parts}; }
  bool operator==(const Activations& other) const {
    return same_bits(codes, other.codes) && same_bits(scales, other.scales) && same_bits(sums, other.sums);
  }
  void fill(Random& random) {
    for (size_t group = 0; group < scales.size(); ++group) {
      scales[group] = random.real(1.0f);
      sums[group] = 0;
      for (size_t i = group * 32; i < group * 32 + 32; ++i)
        sums[group] += codes[i] = static_cast<int8_t>(random.between(-127, 127));
    }
  }
};

}  // namespace antiphon::tests
