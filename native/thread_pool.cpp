#include "thread_pool.h"

namespace antiphon {
namespace {

constexpr int kSpins = 4000;  // some 50 microseconds: longer than the gap between two operations of a step

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

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t num_tasks, const Task& body) {
  if (num_tasks <= 0) return;
  if (workers_.empty() || num_tasks == 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  body_ = &body;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  num_busy_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_tasks(0);
  for (uint32_t busy; (busy = num_busy_.load(std::memory_order_acquire)) != 0;) await_change(num_busy_, busy);
}

void ThreadPool::take_tasks(int thread) {
  for (int64_t task; (task = next_task_.fetch_add(1, std::memory_order_relaxed)) < num_tasks_;) (*body_)(task, thread);
}

void ThreadPool::work(int thread) {
  for (uint32_t seen = 0;;) {
    await_change(round_, seen);
    ++seen;
    if (stopping_) return;
    take_tasks(thread);
    if (num_busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_busy_.notify_one();
  }
}

}  // namespace antiphon
