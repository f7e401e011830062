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

constexpr const char* kTypes[] = {"F32",  "F16",  "BF16", "Q4_0", "Q4_1",   "Q5_0",   "Q5_1",
                                  "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q4_ZP"};

inline const StorageLayout& layout_of(const std::string& type) { return storage_layout(storage_type(type)); }

// Where a block keeps its half-precision numbers.
inline std::vector<size_t> half_offsets(const std::string& type) {
  if (type == "Q6_K") return {208};
  return layout_of(type).has_min ? std::vector<size_t>{0, 2} : std::vector<size_t>{0};
}

// A value of ordinary size, as a type without blocks stores it; half precision for all others.
inline void put_number(Random& random, const std::string& type, uint8_t* to) {
  const float value = random.real(2.0f);
  const uint32_t bits = float_to_bits(value);
  const uint16_t half = type == "BF16" ? static_cast<uint16_t>(bits >> 16) : float_to_half(value);
  std::memcpy(to, type == "F32" ? static_cast<const void*>(&bits) : &half, type == "F32" ? 4 : 2);
}

// Random sound weights: any codes, and scales or values of ordinary size.
inline std::vector<uint8_t> weights(Random& random, const std::string& type, int64_t rows, int64_t columns) {
  const StorageLayout& layout = layout_of(type);
  std::vector<uint8_t> data =
      random.bytes(static_cast<size_t>(rows * columns / (32 * layout.block_groups)) * layout.block_bytes);
  if (type == "F32" || type == "F16" || type == "BF16") {
    for (size_t at = 0; at < data.size(); at += type == "F32" ? 4 : 2) put_number(random, type, data.data() + at);
    return data;
  }
  for (size_t block = 0; block < data.size(); block += layout.block_bytes)
    for (const size_t offset : half_offsets(type)) put_number(random, type, data.data() + block + offset);
  return data;
}

// How activations are quantized: kernels.h.
enum class Planes { kOne, kTwo, kApart };
constexpr Planes kAllPlanes[] = {Planes::kOne, Planes::kTwo, Planes::kApart};

// Quantized activations with room for `capacity` rows.
struct Activations {
  Planes planes;
  int64_t capacity;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;

  Activations(int64_t width, int64_t capacity, Planes planes = Planes::kOne)
      : planes(planes),
        capacity(capacity),
        codes(static_cast<size_t>(width * capacity * (planes == Planes::kOne ? 1 : 2))),
        scales(static_cast<size_t>(width * capacity / 32)),
        sums(scales.size() * (planes == Planes::kApart ? 2 : 1)) {}
  QuantizedRows view() {
    const int64_t low_plane = planes == Planes::kApart ? std::ssize(scales) : 0;
    return {codes.data(), scales.data(), sums.data(), capacity, planes == Planes::kTwo ? 2 : 1, low_plane};
  }
  // Code `k` of group `group`, counted as scales are.
  int32_t code(size_t group, size_t k) const {
    const int8_t* at = codes.data() + group * 32 + k;
    if (planes == Planes::kOne) return *at;
    return planes == Planes::kTwo ? 256 * at[group * 32] + at[group * 32 + 32] : 256 * *at + at[codes.size() / 2];
  }
  void set_code(size_t group, size_t k, int32_t code) {  // once
    const int32_t high = planes == Planes::kOne ? code : (code + 128) >> 8, low = code - 256 * high;
    const size_t at = group * 32 + k, high_at = planes == Planes::kTwo ? at + group * 32 : at;
    codes[high_at] = static_cast<int8_t>(high);
    if (planes != Planes::kOne)
      codes[planes == Planes::kTwo ? high_at + 32 : at + codes.size() / 2] = static_cast<int8_t>(low);
    sums[group] += planes == Planes::kApart ? high : code;
    if (planes == Planes::kApart) sums[group + scales.size()] += low;
  }
  bool operator==(const Activations& other) const {
    return same_bits(codes, other.codes) && same_bits(scales, other.scales) && same_bits(sums, other.sums);
  }
  void fill(Random& random) {
    for (size_t group = 0; group < scales.size(); ++group) {
      scales[group] = random.real(1.0f);
      const int32_t most = planes == Planes::kOne ? 127 : 127 * 256;
      for (size_t k = 0; k < 32; ++k) set_code(group, k, static_cast<int32_t>(random.between(-most, most)));
    }
  }
};

// A panel's product, half by half: each half may write its own columns alone.
inline std::vector<float> product_by_halves(const Kernels& kernels, const PackedView& view, int64_t panel,
                                            const QuantizedRows& in, int64_t first, int64_t count,
                                            const std::vector<float>& start) {
  std::vector<float> out = start;
  for (int64_t half = 0; half < 2; ++half) {
    std::vector<float> one = start;
    kernels.linear_half_panel(view, panel, half, in, first, count, one.data());
    for (size_t i = 0; i < one.size(); ++i) {
      if (static_cast<int64_t>(i) / 16 % 2 == half)
        out[i] = one[i];
      else
        CHECK(float_to_bits(one[i]) == float_to_bits(start[i]));
    }
  }
  return out;
}

}  // namespace antiphon::tests
