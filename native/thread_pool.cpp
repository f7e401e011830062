#include "thread_pool.h"

#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

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

ThreadPool::ThreadPool(int num_threads) : runs_(new Run[static_cast<size_t>(num_threads)]) {
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
  for (int thread = 0; thread < size(); ++thread) {
    Run& mine = runs_[static_cast<size_t>(thread)];
    mine.next.store(num_tasks * thread / size(), std::memory_order_relaxed);
    mine.end = num_tasks * (thread + 1) / size();
  }
  state_.store(kOpen, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_tasks(0);
  uint32_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  for (; state != 0; state = state_.load(std::memory_order_acquire)) await_change(state_, state);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::take_tasks(int thread) {
  for (int other = 0; other < size(); ++other) run_tasks(runs_[static_cast<size_t>((thread + other) % size())], thread);
}

void ThreadPool::run_tasks(Run& run, int thread) {
  try {
    for (int64_t task; (task = run.next.fetch_add(1, std::memory_order_relaxed)) < run.end;) (*body_)(task, thread);
  } catch (...) {  // it must not leave a worker, nor the caller while workers still use its loop
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

// Enters the loop that is open now, if one is; from then on its body stays valid until leave_loop.
bool ThreadPool::join_loop() {
  uint32_t state = state_.load(std::memory_order_acquire);
  while (state & kOpen)
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) return true;
  return false;
}

void ThreadPool::leave_loop() {
  if (state_.fetch_sub(1, std::memory_order_acq_rel) == 1) state_.notify_one();  // closed, and the last one out
}

void ThreadPool::work(int thread) {
  for (;;) {
    const uint32_t seen = round_.load(std::memory_order_acquire);
    if (stopping_) return;
    if (join_loop()) {
      take_tasks(thread);
      leave_loop();
    }
    await_change(round_, seen);
  }
}

}  // namespace antiphon
