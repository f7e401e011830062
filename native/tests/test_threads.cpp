// The thread pool: every task exactly once, whatever the numbers of threads and tasks; loops in order; prompt ends. And
// how work is cut into tasks for a number of threads.
#include <atomic>
#include <memory>
#include <stdexcept>

#include "check.h"
#include "tests.h"
#include "thread_pool.h"
#include "work_split.h"

namespace antiphon::tests {
namespace {

void check_loops(int threads, int64_t tasks, int loops) {
  ThreadPool pool(threads);
  CHECK(pool.size() == threads);
  std::unique_ptr<std::atomic<int>[]> done(new std::atomic<int>[static_cast<size_t>(tasks) + 1]());
  int64_t plain = 0;  // written by task 0 alone: a barrier that leaks shows as a race or a wrong sum
  for (int loop = 0; loop < loops; ++loop) {
    pool.run(tasks, [&](int64_t task, int thread) {
      CHECK(thread >= 0 && thread < threads);
      done[static_cast<size_t>(task)].fetch_add(1, std::memory_order_relaxed);
      if (task == 0) ++plain;
    });
    CHECK(plain == (tasks ? loop + 1 : 0));
  }
  for (int64_t task = 0; task < tasks; ++task) CHECK(done[static_cast<size_t>(task)] == loops);
}

// An exception ends the loop, not the process; the next loop runs as if nothing had happened.
void check_exceptions(int threads) {
  ThreadPool pool(threads);
  for (int64_t loop = 0; loop < 200; ++loop) {
    bool caught = false;
    try {
      pool.run(50, [&](int64_t task, int) {
        if (task % 50 == loop % 50) throw std::runtime_error("told to");
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    CHECK(caught);
    std::atomic<int> done{0};
    pool.run(50, [&](int64_t, int) { ++done; });
    CHECK(done == 50);
  }
}

// Loops of 0 to `most` tasks, one after the other: a task sees what all tasks of the loops before it wrote, without
// atomics, and so does the function that gives the next loop.
void check_order(int threads, int64_t most, int rounds) {
  ThreadPool pool(threads);
  std::vector<int64_t> written[2];  // by even loops and by odd ones
  for (auto& each : written) each.resize(static_cast<size_t>(most));
  for (int round = 0; round < rounds; ++round) {
    int64_t tasks = 0, before = 0, sum = 0;
    int loops = 0;
    const ThreadPool::Task body = [&](int64_t task, int) {
      for (int64_t i = 0; i < before; ++i) CHECK(written[(loops + 1) % 2][static_cast<size_t>(i)] == loops - 1);
      written[loops % 2][static_cast<size_t>(task)] = loops;
    };
    pool.run_loops([&](ThreadPool::Loop& loop) {
      for (int64_t i = 0; i < tasks; ++i) sum += written[loops % 2][static_cast<size_t>(i)] == loops;
      if (loops == 12) return false;
      before = tasks;
      tasks = (loops * 7 + round) % (most + 1);
      ++loops;
      loop = {tasks, &body};
      return true;
    });
    int64_t expected = 0;
    for (int loop = 0; loop < 12; ++loop) expected += (loop * 7 + round) % (most + 1);
    CHECK(loops == 12 && sum == expected);
  }
}

// A task or the function that gives the next loop throws: no further loop begins, and the next call works.
void check_failing_loops(int threads) {
  ThreadPool pool(threads);
  for (int failing = 0; failing < 200; ++failing) {
    const bool in_next = failing % 2;
    int begun = 0;
    const ThreadPool::Task body = [&](int64_t task, int) {
      if (!in_next && begun == 3 && task == failing % 9) throw std::runtime_error("told to");
    };
    bool caught = false;
    try {
      pool.run_loops([&](ThreadPool::Loop& loop) {
        if (in_next && begun == 3) throw std::runtime_error("told to");
        loop = {begun % 2 ? 9 : 10, &body};
        return ++begun < 6;
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    CHECK(caught && begun == 3);
    std::atomic<int> done{0};
    pool.run(20, [&](int64_t, int) { ++done; });
    CHECK(done == 20);
  }
}

// A grid's tasks cover every panel, half and token exactly once, and the busiest thread has no more to do than with
// whole panels.
void check_grid(int64_t panels, int64_t tokens, int64_t planes, bool may_halve, int threads) {
  const PanelGrid grid = split_panels(panels, tokens, planes, may_halve, threads);
  std::vector<int> seen(static_cast<size_t>(2 * panels * tokens));
  for (int64_t index = 0; index < grid.num_tasks(); ++index) {
    const PanelTask task = grid.task(index);
    CHECK(task.first_token < task.end_token && (task.half < 0 || may_halve));
    CHECK(grid.token_parts == 1 || (task.end_token - task.first_token) * planes >= kLeastPartRows - planes);
    for (int64_t token = task.first_token; token < task.end_token; ++token)
      for (int64_t half = 0; half < 2; ++half)
        if (task.half < 0 || task.half == half) ++seen[static_cast<size_t>((task.panel * 2 + half) * tokens + token)];
  }
  for (const int count : seen) CHECK(count == 1);
  const auto busiest = [threads](int64_t tasks) {
    return static_cast<double>((tasks + threads - 1) / threads) / static_cast<double>(tasks);
  };
  if (tokens > 0) CHECK(busiest(grid.num_tasks()) <= busiest(panels));
  if (threads == 1) CHECK(grid.halves == 1 && grid.token_parts == 1);
}

}  // namespace

void test_threads() {
  for (const int threads : {1, 2, 3, 64}) {
    check_order(threads, 20, threads > 3 ? 40 : 300);
    check_failing_loops(threads);
  }
  for (int threads = 1; threads <= 64; ++threads)
    for (const int64_t panels : {1, 18, 48, 64, 280})
      for (const int64_t tokens : {0, 1, 8, 32, 100})
        for (int64_t planes = 1; planes <= 2; ++planes) {
          check_grid(panels, tokens, planes, true, threads);
          check_grid(panels, tokens, planes, false, threads);
        }
  for (const int threads : {1, 2, 8}) check_exceptions(threads);
  for (const int threads : {1, 2, 3, 8})
    for (const int64_t tasks : {0, 1, 2, 5, 100}) check_loops(threads, tasks, threads > 2 ? 300 : 2000);
  for (int i = 0; i < 100; ++i) ThreadPool idle(4);  // made and ended without a loop
}

}  // namespace antiphon::tests
