// The thread pool: every task exactly once, whatever the numbers of threads and tasks, and prompt ends.
#include <atomic>
#include <memory>
#include <stdexcept>

#include "check.h"
#include "tests.h"
#include "thread_pool.h"

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

}  // namespace

void test_threads() {
  for (const int threads : {1, 2, 8}) check_exceptions(threads);
  for (const int threads : {1, 2, 3, 8})
    for (const int64_t tasks : {0, 1, 2, 5, 100}) check_loops(threads, tasks, threads > 2 ? 300 : 2000);
  for (int i = 0; i < 100; ++i) ThreadPool idle(4);  // made and ended without a loop
}

}  // namespace antiphon::tests
