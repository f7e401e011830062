// A weight matrix in the kernels' layout (kernels.h, PackedView), made from one or more stored matrices.
//
// Types with codes of 4 bits become W4, all others W8. Q4_0, Q4_1, Q4_ZP, Q5_0, Q5_1, Q8_0 and IQ4_NL lose nothing;
// Q4_K, Q5_K and IQ4_XS have their groups' scales rounded to half precision; Q6_K (two scales a group), F32, F16 and
// BF16 are rounded to 8 bits. Where parts of one matrix differ, all take the wider form.
#pragma once
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "progress.h"
#include "storage.h"
#include "thread_pool.h"

namespace antiphon {

class PackedMatrix {
 public:
  // Rows of the parts one after the other or, interleaved (two parts of equal shape, rows a multiple of 32), panels of
  // 32 in turn. The memory is the arena's, if there is one. Throws std::invalid_argument when the parts do not fit
  // together or hold a scale that is not finite.
  PackedMatrix(const std::vector<StoredMatrix>& parts, bool interleave, ThreadPool& pool,
               Progress progress = Progress(), Arena* arena = nullptr);

  PackedView view() const;
  size_t bytes() const { return codes_.bytes() + scales_.bytes() + mins_.bytes(); }
  // The sum of (weight * factor)² over the columns, for each of the rows [first, first + count). `factors`: one a
  // column. Throws std::invalid_argument for rows or factors that do not fit.
  std::vector<double> row_energies(int64_t first, int64_t count, const std::vector<float>& factors) const;
  int64_t num_panels() const { return (rows_ + kPanel - 1) / kPanel; }
  const char* format_name() const { return format_ == WeightFormat::kW4 ? "W4" : "W8"; }

 private:
  struct Source {
    const StoredMatrix* part;
    int64_t row;
  };
  Source source_of(const std::vector<StoredMatrix>& parts, int64_t row) const;
  bool pack_panel(const std::vector<StoredMatrix>& parts, int64_t panel);
  void unpack(int64_t row, int64_t group, float* values) const;
  void place(int64_t panel, int64_t group, int64_t channel, const uint8_t* codes, uint16_t scale, uint16_t min);

  WeightFormat format_ = WeightFormat::kW4;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int32_t zero_point_ = 0;
  bool interleaved_ = false;
  Memory codes_, scales_, mins_;
};

}  // namespace antiphon
