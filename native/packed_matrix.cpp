#include "packed_matrix.h"

#include <atomic>
#include <stdexcept>

#include "half.h"
#include "quantize.h"

namespace antiphon {
namespace {

// A group as the packed form keeps it; scale and min in half precision.
struct HalfGroup {
  CodedGroup coded;
  uint16_t scale, min;
};

CodedGroup code_group(const StoredGroup& group) {
  if (storage_layout(group.type).code_bits) return decode_group(group);
  float values[kGroup];
  dequantize_group(group, values);
  CodedGroup out;
  round_to_8_bits(values, out);
  return out;
}

// The group with its codes counted from the matrix' zero point; where that is 0, the group's own goes into its min.
HalfGroup with_zero_point(const CodedGroup& coded, int32_t zero_point) {
  HalfGroup out{coded, float_to_half(coded.scale), float_to_half(coded.min)};
  if (zero_point == 0 && coded.zero_point != 0)
    out.min = float_to_half(coded.min - coded.scale * static_cast<float>(coded.zero_point));
  if (zero_point != 0)
    for (uint8_t& code : out.coded.codes) code = static_cast<uint8_t>(code + zero_point - coded.zero_point);
  return out;
}

bool is_finite_half(uint16_t bits) { return (bits & 0x7C00u) != 0x7C00u; }

}  // namespace

PackedMatrix::PackedMatrix(const std::vector<StoredMatrix>& parts, bool interleave, ThreadPool& pool, Progress progress,
                           Arena* arena)
    : interleaved_(interleave) {
  if (parts.empty()) throw std::invalid_argument("a matrix needs at least one part");
  columns_ = parts[0].columns;
  bool has_mins = false, from_zero = false, any_wide = false;
  for (const StoredMatrix& part : parts) {
    if (part.columns != columns_) throw std::invalid_argument("the parts of a matrix differ in columns");
    rows_ += part.rows;
    has_mins |= storage_layout(part.type).has_min;
    from_zero |= storage_layout(part.type).has_min && part.type != StorageType::kQ4_ZP;
    any_wide |= storage_layout(part.type).code_bits != 4;
  }
  if (interleave && (parts.size() != 2 || parts[0].rows != parts[1].rows || parts[0].rows % kPanel != 0))
    throw std::invalid_argument("interleaved parts must be two of equal rows, a multiple of 32");
  format_ = any_wide ? WeightFormat::kW8 : WeightFormat::kW4;
  zero_point_ = any_wide ? 128 : 8;
  if (from_zero) zero_point_ = 0;
  const size_t groups = static_cast<size_t>(num_panels()) * static_cast<size_t>(columns_ / kGroup);
  const auto allocate = [arena](size_t bytes) { return arena ? arena->allocate(bytes) : Memory(bytes, Pages::kHuge); };
  codes_ = allocate(groups * static_cast<size_t>(group_code_bytes(format_)));
  scales_ = allocate(groups * kPanel * sizeof(uint16_t));
  if (has_mins) mins_ = allocate(groups * kPanel * sizeof(uint16_t));
  std::atomic<bool> finite{true};
  pool.run(num_panels(), [&](int64_t panel, int) {
    if (!pack_panel(parts, panel)) finite = false;
    progress.note();  // from a slow disk one matrix can take minutes
  });
  if (!finite) throw std::invalid_argument("holds a weight or a scale that is not a finite number");
}

PackedView PackedMatrix::view() const {
  return {format_,
          rows_,
          columns_,
          zero_point_,
          codes_.as<uint8_t>(),
          scales_.as<uint16_t>(),
          mins_.bytes() ? mins_.as<uint16_t>() : nullptr};
}

PackedMatrix::Source PackedMatrix::source_of(const std::vector<StoredMatrix>& parts, int64_t row) const {
  if (interleaved_) {
    const int64_t panel = row / kPanel;
    return {&parts[static_cast<size_t>(panel % 2)], panel / 2 * kPanel + row % kPanel};
  }
  size_t part = 0;
  while (row >= parts[part].rows) row -= parts[part++].rows;
  return {&parts[part], row};
}

bool PackedMatrix::pack_panel(const std::vector<StoredMatrix>& parts, int64_t panel) {
  for (int64_t channel = 0; channel < kPanel; ++channel) {
    const int64_t row = panel * kPanel + channel;
    if (row >= rows_) break;  // the last panel's missing channels keep scale zero
    const Source source = source_of(parts, row);
    for (int64_t group = 0; group < columns_ / kGroup; ++group) {
      const HalfGroup packed = with_zero_point(code_group(source.part->group(source.row, group)), zero_point_);
      if (!is_finite_half(packed.scale) || !is_finite_half(packed.min)) return false;
      place(panel, group, channel, packed.coded.codes, packed.scale, packed.min);
    }
  }
  return true;
}

std::vector<double> PackedMatrix::row_energies(int64_t first, int64_t count, const std::vector<float>& factors) const {
  if (first < 0 || count < 0 || first > rows_ - count) throw std::invalid_argument("the matrix has no such rows");
  if (std::ssize(factors) != columns_) throw std::invalid_argument("there must be one factor for each column");
  std::vector<double> energies;
  for (int64_t row = first; row < first + count; ++row) {
    double energy = 0.0;
    for (int64_t group = 0; group < columns_ / kGroup; ++group) {
      float values[kGroup];
      unpack(row, group, values);
      for (int64_t k = 0; k < kGroup; ++k) {
        const double product =
            static_cast<double>(values[k]) * static_cast<double>(factors[to_size(group * kGroup + k)]);
        energy += product * product;
      }
    }
    energies.push_back(energy);
  }
  return energies;
}

// The inverse of place().
void PackedMatrix::unpack(int64_t row, int64_t group, float* values) const {
  const int64_t at = row / kPanel * (columns_ / kGroup) + group, channel = row % kPanel;
  const float scale = half_to_float(scales_.as<uint16_t>()[at * kPanel + channel]);
  const float min = mins_.bytes() ? half_to_float(mins_.as<uint16_t>()[at * kPanel + channel]) : 0.0f;
  const uint8_t* lines = codes_.as<uint8_t>() + at * group_code_bytes(format_);
  lines += channel / 16 * (group_code_bytes(format_) / 2) + channel % 16 * 4;
  for (int k = 0; k < kGroup; ++k) {
    const int line = format_ == WeightFormat::kW8 ? k : k % 16;
    const int byte = lines[line / 4 * 64 + line % 4];
    const int code = format_ == WeightFormat::kW8 ? byte : k < 16 ? byte & 15 : byte >> 4;
    values[k] = scale * static_cast<float>(code - zero_point_) + min;
  }
}

void PackedMatrix::place(int64_t panel, int64_t group, int64_t channel, const uint8_t* codes, uint16_t scale,
                         uint16_t min) {
  const int64_t at = panel * (columns_ / kGroup) + group;
  scales_.as<uint16_t>()[at * kPanel + channel] = scale;
  if (mins_.bytes()) mins_.as<uint16_t>()[at * kPanel + channel] = min;
  uint8_t* lines = codes_.as<uint8_t>() + at * group_code_bytes(format_);
  lines += channel / 16 * (group_code_bytes(format_) / 2) + channel % 16 * 4;
  if (format_ == WeightFormat::kW8) {
    for (int k = 0; k < kGroup; ++k) lines[k / 4 * 64 + k % 4] = codes[k];
    return;
  }
  for (int k = 0; k < 16; ++k) lines[k / 4 * 64 + k % 4] = static_cast<uint8_t>(codes[k] | codes[k + 16] << 4);
}

}  // namespace antiphon
