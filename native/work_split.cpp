#include "work_split.h"

namespace antiphon {
namespace {

// What a finer grid costs, estimated (docs/decisions/029-many-cores.md): a half panel reads every other
// 256 bytes, and each part of the tokens unpacks the weights again.
constexpr double kHalfCost = 0.05;
constexpr double kPartCost = 0.05;

// The time of the busiest thread, in units of the whole product on one thread.
double busiest(const PanelGrid& grid, int num_threads) {
  const int64_t tasks = grid.num_tasks(), most = (tasks + num_threads - 1) / num_threads;
  const double cost = 1.0 + (grid.halves > 1 ? kHalfCost : 0.0) + (grid.token_parts > 1 ? kPartCost : 0.0);
  return cost * static_cast<double>(most) / static_cast<double>(tasks);
}

}  // namespace

PanelGrid split_panels(int64_t panels, int64_t tokens, int64_t planes, bool may_halve, int num_threads) {
  PanelGrid best{panels, 1, 1, tokens};
  if (num_threads == 1 || best.num_tasks() == 0) return best;
  for (int64_t parts = 1; parts == 1 || tokens * planes / parts >= kLeastPartRows; parts *= 2) {
    for (int64_t halves = 1; halves <= (may_halve ? 2 : 1); ++halves) {
      const PanelGrid grid{panels, halves, parts, tokens};
      if (busiest(grid, num_threads) < busiest(best, num_threads)) best = grid;
    }
    if (panels * parts >= int64_t{16} * num_threads) break;  // finer than this gains nothing
  }
  return best;
}

}  // namespace antiphon
