// A few threads that run one loop at a time. Each has a run of successive tasks of its own, since what lies together in
// memory is read faster; when it is through, it helps the others. Tasks are taken one by one, so a thread that lost its
// core delays only the task it holds. Waiting threads spin briefly, then sleep: on a small machine the core is wanted
// by others.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace antiphon {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // the caller of run() is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  using Task = std::function<void(int64_t task, int thread)>;
  // Calls body(task, thread) for every task in [0, num_tasks), in any order, and returns when all are done. Not
  // reentrant. body must not throw.
  void run(int64_t num_tasks, const Task& body);

  int size() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  void work(int thread);
  bool join_loop();
  void leave_loop();
  void take_tasks(int thread);

  // state_: whether a loop is open to workers, and how many are in it. A loop ends when all tasks are taken and nobody
  // is left in it; workers that were asleep or lost their core meanwhile are not waited for.
  static constexpr uint32_t kOpen = 1u << 31;

  struct alignas(64) Run {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  std::vector<std::thread> workers_;
  const Task* body_ = nullptr;
  std::unique_ptr<Run[]> runs_;  // one for each thread
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> round_{0};  // grows by one a loop: the signal to start
  alignas(64) std::atomic<uint32_t> state_{0};
};

}  // namespace antiphon
