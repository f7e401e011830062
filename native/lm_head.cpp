#include "lm_head.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <vector>

#include "work_split.h"

namespace antiphon {
namespace {

constexpr int64_t kMostPanels = 16;      // of a task: enough work to be worth handing out
constexpr int64_t kTasksPerThread = 16;  // at least, where there are enough panels, so that threads end together
constexpr int64_t kPanelsAShard = kShard / kPanel;

// Greater for greater numbers; what is not a number has its place too.
uint32_t ordered_bits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return bits >> 31 ? ~bits : bits | 1u << 31;
}

}  // namespace

LogitRows::LogitRows(int64_t max_rows, int64_t vocabulary_size) : vocabulary(vocabulary_size) {
  values = Memory(to_size(max_rows * vocabulary) * sizeof(float));
  summaries = Memory(to_size(max_rows * num_shards()) * sizeof(ShardSummary));
}

LmHead::LmHead(std::shared_ptr<const PackedMatrix> matrix, bool wide, int64_t max_rows, const Kernels& kernels,
               ThreadPool& pool, Progress progress)
    : matrix_(std::move(matrix)),
      wide_(wide),
      num_panels_(matrix_->num_panels()),
      num_corrected_(std::min(kCorrectedPanels, num_panels_)),
      summaries_(to_size(max_rows * num_panels_) * sizeof(ShardSummary)),
      chosen_(to_size(max_rows * num_corrected_) * sizeof(int32_t)),
      kernels_(kernels),
      pool_(pool),
      progress_(progress) {}

LmHeadLoop LmHead::for_panels(std::function<int64_t()> count, std::function<void(int64_t)> body) const {
  const auto per_task = [this, count] { return items_per_task(count(), kMostPanels, pool_.size(), kTasksPerThread); };
  return {[count, per_task] { return num_tasks_of(count(), per_task()); },
          [this, count, per_task, body = std::move(body)](int64_t task, int) {
            const int64_t panels = per_task(), end = std::min(count(), (task + 1) * panels);
            for (int64_t i = task * panels; i < end; ++i) body(i);
            progress_.note();
          }};
}

LmHeadLoop LmHead::for_tokens(std::function<int64_t()> count, std::function<void(int64_t)> body) const {
  return {std::move(count), [this, body = std::move(body)](int64_t row, int) {
            body(row);
            progress_.note();
          }};
}

std::vector<LmHeadLoop> LmHead::loops(std::function<LmHeadInput()> input, const LogitRows& out) const {
  const auto count = [input] { return input().count; };
  std::vector<LmHeadLoop> loops;
  const auto all_panels = [this, input] { return input().count ? num_panels_ : 0; };
  loops.push_back(for_panels(all_panels, [this, input, &out](int64_t panel) {
    const LmHeadInput in = input();
    multiply(in.rows, in.count, panel, out);
  }));
  if (!wide_) {
    loops.push_back(for_tokens(count, [this](int64_t row) { choose(row); }));
    const auto corrected = [this, count] { return count() * num_corrected_; };
    loops.push_back(for_panels(corrected, [this, input, &out](int64_t i) {
      correct(input().rows, i / num_corrected_, chosen_.as<int32_t>()[i], out);
    }));
  }
  loops.push_back(for_tokens(count, [this, &out](int64_t row) { summarize(row, out); }));
  return loops;
}

void LmHead::run(const LmHeadInput& in, const LogitRows& out) const {
  for (const LmHeadLoop& loop : loops([&in] { return in; }, out)) pool_.run(loop.begin(), loop.body);
}

void LmHead::multiply(const QuantizedRows& in, int64_t rows, int64_t panel, const LogitRows& out) const {
  alignas(64) float tile[kRowChunk * kPanel];
  const int64_t first_channel = panel * kPanel, channels = std::min(kPanel, out.vocabulary - first_channel);
  const int64_t step = kRowChunk / in.planes;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    std::fill(tile, tile + count * kPanel, 0.0f);
    kernels_.linear_panel(matrix_->view(), panel, in, first, count, tile);
    for (int64_t i = 0; i < count; ++i) {
      const float* logits = tile + i * kPanel;
      std::copy(logits, logits + channels, out.row(first + i) + first_channel);
      summary(first + i, panel) = kernels_.summarize(logits, channels);
    }
  }
}

// The panels with the largest maxima and, of equal ones, the last.
void LmHead::choose(int64_t row) const {
  std::vector<uint64_t> panels(to_size(num_panels_));  // what orders them, then their number
  for (int64_t panel = 0; panel < num_panels_; ++panel)
    panels[to_size(panel)] = uint64_t{ordered_bits(summary(row, panel).maximum)} << 32 | static_cast<uint32_t>(panel);
  // A heap of the largest so far: most panels are not among them, which is one comparison each.
  std::partial_sort(panels.begin(), panels.begin() + num_corrected_, panels.end(), std::greater<>());
  std::transform(panels.begin(), panels.begin() + num_corrected_, chosen_.as<int32_t>() + row * num_corrected_,
                 [](uint64_t panel) { return static_cast<int32_t>(panel); });
}

// Adds the product of the low plane, whose codes count in 1/256 of the scale.
void LmHead::correct(const QuantizedRows& in, int64_t row, int64_t panel, const LogitRows& out) const {
  const int64_t first_channel = panel * kPanel, channels = std::min(kPanel, out.vocabulary - first_channel);
  float* logits = out.row(row) + first_channel;
  alignas(64) float product[kPanel] = {};
  kernels_.linear_panel(matrix_->view(), panel, in.low(), row, 1, product);
  for (int64_t i = 0; i < channels; ++i) logits[i] += product[i] * (1.0f / 256.0f);
  summary(row, panel) = kernels_.summarize(logits, channels);
}

void LmHead::summarize(int64_t row, const LogitRows& out) const {
  for (int64_t shard = 0; shard < out.num_shards(); ++shard) {
    ShardSummary whole = summary(row, shard * kPanelsAShard);
    const int64_t end = std::min(num_panels_, (shard + 1) * kPanelsAShard);
    for (int64_t panel = shard * kPanelsAShard + 1; panel < end; ++panel) {
      whole.maximum = std::max(whole.maximum, summary(row, panel).maximum);
      whole.not_finite += summary(row, panel).not_finite;
    }
    out.shards(row)[shard] = whole;
  }
}

}  // namespace antiphon
