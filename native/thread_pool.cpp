#include "thread_pool.h"

#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace antiphon {
namespace {

constexpr int kSpins = 4000;  // some 50 microseconds: longer than the gap between two operations of a step
constexpr int64_t kMostTasks = int64_t{1} << 31;  // of one loop: what a share's 32 bits can count

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns when `value` is no longer `old`.
void await_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

constexpr bool is_running(uint32_t round) { return round % 2 == 0; }

}  // namespace

ThreadPool::ThreadPool(int num_threads) : shares_(new Share[static_cast<size_t>(num_threads)]) {
  workers_.reserve(static_cast<size_t>(num_threads));
  try {
    for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error& error) {
    const int started = size();
    stop();
    throw std::runtime_error("only " + std::to_string(started) + " of " + std::to_string(num_threads) +
                             " threads could be started (" + error.code().message() + ")");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  round_.fetch_add(2, std::memory_order_release);  // no loop runs, and the number changes
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t num_tasks, const Task& body) {
  bool is_first = true;
  run_loops([&](Loop& loop) {
    loop = {num_tasks, &body};
    return std::exchange(is_first, false);
  });
}

void ThreadPool::run_loops(const NextLoop& next) {
  next_ = &next;
  start_next_loop(0);
  compute_rounds(0);
  failed_ = false;
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Takes part in one loop after the other until no loop runs.
void ThreadPool::compute_rounds(int thread) {
  for (;;) {
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (!is_running(round)) return;
    compute_round(round, thread);
    await_change(round_, round);
  }
}

void ThreadPool::work(int thread) {
  for (;;) {
    compute_rounds(thread);
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (stopping_) return;
    if (!is_running(round)) await_change(round_, round);
  }
}

// Takes tasks until there are none to be taken. The thread that then finds that all have ended starts the next loop.
void ThreadPool::compute_round(uint32_t round, int thread) {
  int64_t finished = 0;
  for (int other = 0; other < size(); ++other) {
    const int share = (thread + other) % size();
    for (int64_t task; take(round, share, task); ++finished) compute(loop_, task, thread);
  }
  if (finished > 0 && unfinished_.fetch_sub(finished, std::memory_order_acq_rel) == finished) start_next_loop(thread);
}

// Takes a task of a share, if the round still runs and one is left. From then on, the round runs at least until the
// task is counted as finished, so `loop_` may be read.
bool ThreadPool::take(uint32_t round, int share, int64_t& task) {
  std::atomic<uint64_t>& left = shares_[static_cast<size_t>(share)].left;
  uint64_t seen = left.load(std::memory_order_acquire);
  while (seen >> 32 == round && static_cast<uint32_t>(seen) != 0)
    if (left.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      task = share_end(share) - static_cast<int64_t>(static_cast<uint32_t>(seen));
      return true;
    }
  return false;
}

// An exception must leave neither a worker nor, while workers are in the loop, its caller.
void ThreadPool::compute(const Loop& loop, int64_t task, int thread) {
  if (failed_.load(std::memory_order_relaxed)) return;
  try {
    (*loop.body)(task, thread);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
    failed_ = true;
  }
}

// Called by one thread at a time, while no tasks are left. Loops of one task are computed at once: others could not
// help.
void ThreadPool::start_next_loop(int thread) {
  for (;;) {
    Loop loop;
    bool is_any = false;
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        is_any = (*next_)(loop);
        if (loop.num_tasks > kMostTasks) throw std::invalid_argument("a loop has too many tasks");
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
        is_any = false;
      }
    }
    if (!is_any) break;
    if (loop.num_tasks > 1 && !workers_.empty()) return publish(loop);
    for (int64_t task = 0; task < loop.num_tasks; ++task) compute(loop, task, thread);
  }
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (!is_running(round)) return;                      // every loop was computed at once
  round_.store(round + 1, std::memory_order_release);  // run_loops() may return from here on
  round_.notify_all();
}

void ThreadPool::publish(const Loop& loop) {
  const uint32_t before = round_.load(std::memory_order_relaxed), round = before + (is_running(before) ? 2 : 1);
  loop_ = loop;
  unfinished_.store(loop.num_tasks, std::memory_order_relaxed);
  for (int share = 0; share < size(); ++share) {
    const int64_t begin = loop.num_tasks * share / size();
    const auto count = static_cast<uint64_t>(share_end(share) - begin);
    shares_[static_cast<size_t>(share)].left.store(uint64_t{round} << 32 | count, std::memory_order_release);
  }
  round_.store(round, std::memory_order_release);
  round_.notify_all();
}

}  // namespace antiphon
