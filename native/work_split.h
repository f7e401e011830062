// How a loop's work is cut into tasks for the threads of a program. It depends on the number of threads, and changes no
// bits: every output is computed whole by one task, in the same order (docs/decisions/029-many-cores.md).
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels.h"

namespace antiphon {

// What one task computes of a matrix product: a panel (half -1) or half of one, for some of the tokens.
struct PanelTask {
  int64_t panel, half;
  int64_t first_token, end_token;

  int64_t first_column() const { return panel * kPanel + std::max<int64_t>(half, 0) * 16; }
};

// A product of `panels` panels (or pairs of panels) and `tokens` tokens, as a grid. Tasks of one panel follow each
// other, so that a thread that computes all of them finds the weights in its cache.
struct PanelGrid {
  int64_t panels = 0, halves = 1, token_parts = 1, tokens = 0;

  int64_t num_tasks() const { return tokens ? panels * halves * token_parts : 0; }
  PanelTask task(int64_t index) const {
    const int64_t part = index % token_parts, rest = index / token_parts;
    return {rest / halves, halves == 1 ? -1 : rest % halves, tokens * part / token_parts,
            tokens * (part + 1) / token_parts};
  }
};

constexpr int64_t kLeastPartRows = 16;  // rows of a task, where tokens are split: below, weights are unpacked too often

// The grid whose busiest thread has the least to do. Panels stay whole unless a finer grid saves more than it costs.
// `may_halve`: whether half a panel is a result of its own. `planes`: rows of each token.
PanelGrid split_panels(int64_t panels, int64_t tokens, int64_t planes, bool may_halve, int num_threads);

// Tasks of `items` equal, small pieces of work: at most `most` in a task, fewer where there are many threads.
constexpr int64_t items_per_task(int64_t items, int64_t most, int num_threads, int64_t tasks_per_thread) {
  return std::clamp<int64_t>(items / (num_threads * tasks_per_thread), 1, most);
}

constexpr int64_t num_tasks_of(int64_t items, int64_t per_task) { return (items + per_task - 1) / per_task; }

}  // namespace antiphon
