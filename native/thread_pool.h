// A few threads that run one loop at a time. Each begins with a run of successive tasks of its own, since neighbours in
// memory are read faster, and then helps the others. Tasks are taken one by one, so a thread that lost its core delays
// only the task it holds. Waiting threads spin briefly and then sleep: on a small machine others need the core.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace antiphon {

class ThreadPool {
 public:
  // The caller of run() is one of the threads. Throws std::runtime_error where the system cannot start the others.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  using Task = std::function<void(int64_t task, int thread)>;
  // Calls body(task, thread) for every task in [0, num_tasks), in any order, and returns when all are done. Where calls
  // throw, the first exception is thrown on once the others have ended; some tasks may then not have run. Not
  // reentrant.
  void run(int64_t num_tasks, const Task& body);

  int size() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  struct alignas(64) Run {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void stop();
  void work(int thread);
  bool join_loop();
  void leave_loop();
  void take_tasks(int thread);
  void run_tasks(Run& run, int thread);

  // state_: whether a loop is open to workers, and how many are in it. A loop ends when all tasks are taken and nobody
  // is left in it; workers that were asleep or lost their core meanwhile are not waited for.
  static constexpr uint32_t kOpen = 1u << 31;

  std::vector<std::thread> workers_;
  const Task* body_ = nullptr;
  std::unique_ptr<Run[]> runs_;  // one for each thread
  std::atomic<bool> stopping_{false};
  std::exception_ptr failure_;  // the first of the running loop
  std::mutex failure_mutex_;
  alignas(64) std::atomic<uint32_t> round_{0};  // grows by one a loop: the signal to start
  alignas(64) std::atomic<uint32_t> state_{0};
};

}  // namespace antiphon
