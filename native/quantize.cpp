#include "quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "half.h"

namespace antiphon {
namespace {

constexpr int64_t kLanes = 16;  // rows that are quantized together

void put_half(uint8_t* to, float value) {
  const uint16_t bits = float_to_half(value);
  std::memcpy(to, &bits, sizeof bits);
}

// Error and norm of the rows of one task.
struct Sums {
  double error = 0.0, norm = 0.0;
};

class Quantizer {
 public:
  Quantizer(const StoredMatrix& matrix, StorageType type, std::span<const float> importance, const Kernels& kernels,
            uint8_t* blocks)
      : matrix_(matrix), layout_(storage_layout(type)), kernels_(kernels), blocks_(blocks) {
    weigh(importance);
  }

  // Rows [first, first + kLanes). False when one of them holds a number that cannot be stored.
  bool quantize_rows(int64_t first, Sums& sums) const {
    const int64_t count = std::min(kLanes, matrix_.rows - first);
    float values[kLanes][kGroup] = {};
    for (int64_t group = 0; group < matrix_.columns / kGroup; ++group) {
      for (int64_t i = 0; i < count; ++i) {
        dequantize_group(matrix_.group(first + i, group), values[i]);
        if (!std::all_of(values[i], values[i] + kGroup, [](float value) { return std::isfinite(value); })) return false;
      }
      const bool sound = layout_.type == StorageType::kQ8_0 ? to_8_bits(values, count, first, group, sums)
                                                            : to_4_bits(values, count, first, group, sums);
      if (!sound) return false;
    }
    return true;
  }

 private:
  // Importance, its mean made 1. A group of columns that nobody ever used counts evenly, and next to nothing.
  void weigh(std::span<const float> importance) {
    importance_.assign(static_cast<size_t>(matrix_.columns), 1.0f);
    if (importance.empty()) return;
    double total = 0.0;
    for (const float weight : importance) {
      if (!(weight >= 0.0f) || !std::isfinite(weight))
        throw std::invalid_argument("importance must be finite and >= 0");
      total += static_cast<double>(weight);
    }
    if (importance.size() != importance_.size()) throw std::invalid_argument("importance must have a number a column");
    if (total == 0.0) return;
    const double factor = static_cast<double>(importance.size()) / total;
    for (size_t i = 0; i < importance.size(); ++i)
      importance_[i] = std::max(static_cast<float>(static_cast<double>(importance[i]) * factor), 1e-6f);
  }

  uint8_t* block(int64_t row, int64_t group) const {
    return blocks_ + static_cast<size_t>(row * (matrix_.columns / kGroup) + group) * layout_.block_bytes;
  }

  void add_norm(const float (*values)[kGroup], int64_t count, int64_t group, Sums& sums) const {
    const float* importance = importance_.data() + group * kGroup;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < kGroup; ++k)
        sums.norm += static_cast<double>(importance[k]) * static_cast<double>(values[i][k]) * values[i][k];
  }

  bool to_4_bits(const float (*values)[kGroup], int64_t count, int64_t first, int64_t group, Sums& sums) const {
    float lanes[kGroup * kLanes];
    for (int64_t k = 0; k < kGroup; ++k)
      for (int64_t i = 0; i < kLanes; ++i) lanes[k * kLanes + i] = values[i][k];
    FourBitGroups rounded;
    kernels_.round_to_4_bits(lanes, importance_.data() + group * kGroup, layout_.has_min, &rounded);
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(rounded.errors[i])) return false;
      sums.error += static_cast<double>(rounded.errors[i]);
      uint8_t* out = block(first + i, group);
      put_half(out, rounded.scales[i]);
      if (layout_.has_min) put_half(out + 2, rounded.mins[i]);
      uint8_t* codes = out + (layout_.has_min ? 4 : 2);
      for (int64_t k = 0; k < kGroup / 2; ++k)
        codes[k] = static_cast<uint8_t>(rounded.codes[k][i] | rounded.codes[k + kGroup / 2][i] << 4);
    }
    add_norm(values, count, group, sums);
    return true;
  }

  bool to_8_bits(const float (*values)[kGroup], int64_t count, int64_t first, int64_t group, Sums& sums) const {
    const float* importance = importance_.data() + group * kGroup;
    for (int64_t i = 0; i < count; ++i) {
      CodedGroup coded;
      round_to_8_bits(values[i], coded);
      if (!std::isfinite(coded.scale)) return false;
      uint8_t* out = block(first + i, group);
      put_half(out, coded.scale);
      for (int64_t k = 0; k < kGroup; ++k) {
        out[2 + k] = static_cast<uint8_t>(coded.codes[k] - 128);
        const float error = values[i][k] - coded.scale * static_cast<float>(coded.codes[k] - 128);
        sums.error += static_cast<double>(importance[k]) * static_cast<double>(error) * static_cast<double>(error);
      }
    }
    add_norm(values, count, group, sums);
    return true;
  }

  const StoredMatrix& matrix_;
  const StorageLayout& layout_;
  const Kernels& kernels_;
  uint8_t* blocks_;
  std::vector<float> importance_;
};

}  // namespace

QuantizedMatrix quantize_matrix(const StoredMatrix& matrix, StorageType type, std::span<const float> importance,
                                const Kernels& kernels, ThreadPool& pool, Progress progress) {
  if (type != StorageType::kQ4_0 && type != StorageType::kQ4_1 && type != StorageType::kQ8_0)
    throw std::invalid_argument(std::string("weights are quantized to Q4_0, Q4_1 or Q8_0, not to ") +
                                storage_layout(type).name);
  const size_t groups = static_cast<size_t>(matrix.rows) * static_cast<size_t>(matrix.columns / kGroup);
  QuantizedMatrix out{Memory(groups * storage_layout(type).block_bytes), 0.0, 0.0};
  const Quantizer quantizer(matrix, type, importance, kernels, out.blocks.as<uint8_t>());
  const int64_t num_tasks = (matrix.rows + kLanes - 1) / kLanes;
  std::vector<Sums> sums(static_cast<size_t>(num_tasks));  // one a task, so that threads do not show in the sum
  std::atomic<bool> sound{true};
  pool.run(num_tasks, [&](int64_t task, int) {
    if (!quantizer.quantize_rows(task * kLanes, sums[static_cast<size_t>(task)])) sound = false;
    progress.note();
  });
  if (!sound)
    throw std::invalid_argument("holds a weight that is not a finite number, or too large for half precision");
  for (const Sums& part : sums) {
    out.error += part.error;
    out.norm += part.norm;
  }
  return out;
}

// Plain loops that compilers turn into vectors, since every float weight of a model may come through here.
void round_to_8_bits(const float* values, CodedGroup& out) {
  out.zero_point = 128;
  int32_t largest_bits = 0;  // magnitudes are in the order of their bits; infinity and what is no number come last
  for (int i = 0; i < kGroup; ++i)
    largest_bits = std::max(largest_bits, static_cast<int32_t>(float_to_bits(values[i]) & 0x7FFFFFFFu));
  const float largest = bits_to_float(static_cast<uint32_t>(largest_bits));
  if (!std::isfinite(largest)) {
    out.scale = largest;
    return;
  }
  uint16_t bits = float_to_half(largest / 127.0f);
  if (half_to_float(bits) * 127.0f < largest) ++bits;
  out.scale = half_to_float(bits);
  const float divisor = out.scale > 0.0f ? out.scale : 1.0f;  // all codes are 0 then
  for (int i = 0; i < kGroup; ++i) {
    // Adding 1.5 * 2^23 leaves no room for a fraction: the float unit rounds to the nearest, ties to even. The lowest
    // bits of the sum are the code, plus 128.
    const float shifted = values[i] / divisor + 12582912.0f;
    out.codes[i] = static_cast<uint8_t>(float_to_bits(shifted) + 128u);
  }
}

}  // namespace antiphon
