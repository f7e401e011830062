// The operations of a program, but for attention: each is checked and recorded as a parallel loop.
#include <algorithm>

#include "program.h"
#include "require.h"

namespace antiphon {

// The rows of a thread's share are those of the same sequences in every such loop, and in attention.
void Program::record_rows(StepPhase phase, bool sampled, std::function<void(int64_t row)> body) {
  constexpr int64_t kRows = 4;  // of a task, at most: enough work to be worth handing out
  const auto per_task = [this, sampled] {
    const int64_t rows = rows_of(sampled);
    return rows <= kRows ? kRows : items_per_task(rows, kRows, pool_->size(), 1);
  };
  const auto begin = [this, sampled, per_task] { return num_tasks_of(rows_of(sampled), per_task()); };
  record(phase, begin, [this, sampled, per_task, body = std::move(body)](int64_t task, int) {
    const int64_t count = per_task(), end = std::min(rows_of(sampled), (task + 1) * count);
    for (int64_t row = task * count; row < end; ++row) body(row);
    progress_.note();
  });
}

void Program::embed(const StoredMatrix& table, int out) {
  const FloatBuffer& target = floats(out);
  require(target.width == table.columns && table.rows >= shape_.vocabulary, "the embedding does not fit its buffer");
  record_rows(StepPhase::kRest, false, [this, table, &target](int64_t row) {
    const int64_t token_id = token_ids_[to_size(row)];
    progress_.note();  // the table is in the file: reading a row may wait for the disk
    for (int64_t g = 0; g < table.columns / kGroup; ++g)
      dequantize_group(table.group(token_id, g), target.row(row) + g * kGroup);
  });
}

void Program::reorder(int in, std::vector<int32_t> order, int out) {
  const FloatBuffer& source = floats(in);
  const FloatBuffer& target = floats(out);
  require(in != out && source.width == target.width && std::ssize(order) == source.width &&
              source.sampled == target.sampled,
          "reorder: widths differ");
  for (const int32_t column : order) require(column >= 0 && column < source.width, "reorder: there is no such column");
  record_rows(StepPhase::kRest, source.sampled, [&source, &target, order = std::move(order)](int64_t row) {
    for (size_t i = 0; i < order.size(); ++i) target.row(row)[i] = source.row(row)[order[i]];
  });
}

void Program::rms_norm(int in, std::vector<float> weight, float epsilon, int out) {
  const FloatBuffer& source = floats(in);
  const QuantizedBuffer& target = quantized(out);
  require(source.width == target.width && std::ssize(weight) == source.width && source.sampled == target.sampled,
          "rms_norm: widths differ");
  record_rows(StepPhase::kRest, source.sampled,
              [this, &source, &target, epsilon, weight = std::move(weight)](int64_t row) {
                kernels_.rms_norm(source.row(row), weight.data(), epsilon, source.width, step_rows(target), row);
              });
}

// The task's columns of tile[i][0..32) = bias + the product of token first + i; the bias comes first in the order of
// adding. count * planes is at most kRowChunk.
void Program::multiply(const PackedView& view, const PanelTask& task, const QuantizedRows& in, int64_t first,
                       int64_t count, const float* bias, float* tile) const {
  const int64_t panel = task.panel, channels = std::min(kPanel, view.rows - panel * kPanel);
  std::fill(tile, tile + count * kPanel, 0.0f);
  if (bias)
    for (int64_t i = 0; i < count; ++i)
      std::copy(bias + panel * kPanel, bias + panel * kPanel + channels, tile + i * kPanel);
  if (task.half < 0)
    kernels_.linear_panel(view, panel, in, first, count, tile);
  else
    kernels_.linear_half_panel(view, panel, task.half, in, first, count, tile);
  progress_.note();  // on a slow machine one operation can take many seconds
}

void Program::linear(int in, std::shared_ptr<const PackedMatrix> matrix, std::vector<float> bias, int out,
                     bool accumulate, int64_t first_column) {
  const QuantizedBuffer& source = quantized(in);
  const FloatBuffer& target = floats(out);
  const PackedView view = matrix->view();
  require(view.columns == source.width && !source.sampled && !target.sampled && first_column >= 0 &&
              first_column + view.rows <= target.width,
          "linear: the matrix does not fit its buffers");
  require(bias.empty() || std::ssize(bias) == view.rows, "linear: the bias does not fit the matrix");
  const auto grid = std::make_shared<PanelGrid>();  // of the running step
  const auto begin = [this, grid, &source, panels = matrix->num_panels()] {
    *grid = split_panels(panels, num_tokens_, source.planes(), true, pool_->size());
    return grid->num_tasks();
  };
  record(StepPhase::kLinear, begin,
         [this, grid, &source, &target, view, matrix, accumulate, first_column, bias = std::move(bias)](int64_t index,
                                                                                                        int thread) {
           const PanelTask task = grid->task(index);
           float* tile = thread_scratch_[to_size(thread)].as<float>();
           const int64_t left = task.first_column(), right = std::min(view.rows, left + (task.half < 0 ? kPanel : 16));
           const int64_t step = kRowChunk / source.planes(), in_tile = left % kPanel;
           for (int64_t first = task.first_token; first < task.end_token; first += step) {
             const int64_t count = std::min(step, task.end_token - first);
             multiply(view, task, step_rows(source), first, count, bias.empty() ? nullptr : bias.data(), tile);
             for (int64_t row = 0; row < count; ++row) {
               float* to = target.row(first + row) + first_column + left;
               const float* from = tile + row * kPanel + in_tile;
               for (int64_t c = 0; c < right - left; ++c) to[c] = accumulate ? to[c] + from[c] : from[c];
             }
           }
         });
}

void Program::linear_silu_mul(int in, std::shared_ptr<const PackedMatrix> matrix, int out) {
  const QuantizedBuffer& source = quantized(in);
  const QuantizedBuffer& target = quantized(out);
  const PackedView view = matrix->view();
  require(view.columns == source.width && view.rows == 2 * target.width && !source.sampled && !target.sampled,
          "linear_silu_mul: the matrix does not fit its buffers");
  const auto grid = std::make_shared<PanelGrid>();  // of the running step, in pairs of panels
  const auto begin = [this, grid, &source, pairs = matrix->num_panels() / 2] {
    *grid = split_panels(pairs, num_tokens_, source.planes(), false, pool_->size());  // a group has one scale
    return grid->num_tasks();
  };
  record(StepPhase::kLinear, begin, [this, grid, &source, &target, view, matrix](int64_t index, int thread) {
    const PanelTask pair = grid->task(index);
    float* gate = thread_scratch_[to_size(thread)].as<float>();
    float* up = gate + kRowChunk * kPanel;
    const int64_t step = kRowChunk / source.planes();
    for (int64_t first = pair.first_token; first < pair.end_token; first += step) {
      const int64_t count = std::min(step, pair.end_token - first);
      multiply(view, {2 * pair.panel, -1, 0, 0}, step_rows(source), first, count, nullptr, gate);
      multiply(view, {2 * pair.panel + 1, -1, 0, 0}, step_rows(source), first, count, nullptr, up);
      kernels_.silu_mul(gate, up, count, step_rows(target), first, pair.panel);
    }
  });
}

void Program::select_rows(int in, int out) {
  const FloatBuffer& source = floats(in);
  const FloatBuffer& target = floats(out);
  require(source.width == target.width && !source.sampled && target.sampled, "select_rows: buffers do not fit");
  is_drawing_ = true;
  record_rows(StepPhase::kRest, true, [this, &source, &target](int64_t row) {
    const float* from = source.row(drawn_rows_[to_size(row)]);
    std::copy(from, from + source.width, target.row(row));
  });
}

void Program::logits(int in, std::shared_ptr<const PackedMatrix> matrix) {
  const QuantizedBuffer& source = quantized(in);
  const PackedView view = matrix->view();
  require(view.columns == source.width && view.rows == shape_.vocabulary && source.sampled,
          "logits: the head does not fit");
  const auto lm_head =
      std::make_shared<LmHead>(std::move(matrix), source.wide, shape_.max_sequences, kernels_, *pool_, progress_);
  const auto input = [this, &source] { return LmHeadInput{step_rows(source), rows_of(true)}; };
  for (LmHeadLoop& loop : lm_head->loops(input, logits_))
    record(StepPhase::kLmHead, std::move(loop.begin),
           [lm_head, body = std::move(loop.body)](int64_t task, int thread) { body(task, thread); });
}

void Program::record(StepPhase phase, std::function<int64_t()> begin, ThreadPool::Task body) {
  operations_.push_back({phase, std::move(begin), std::move(body)});
  if (!is_drawing_) first_drawing_ = operations_.size();
}

}  // namespace antiphon
