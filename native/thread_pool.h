// A few threads that compute parallel loops, one after the other. In each loop a thread begins with a run of successive
// tasks of its own, since neighbours in memory are read faster, and then helps the others. Tasks are taken one by one,
// so a thread that lost its core delays only the task it holds.
//
// Loops follow each other without a meeting of all threads: a loop has ended when its last task has, and the thread
// that finished it starts the next loop. Threads that found nothing to do are not waited for. Waiting threads spin
// briefly and then sleep, since on a small machine others need the core.
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
  // One parallel loop: body(task, thread) for every task in [0, num_tasks), in any order. `thread` is in [0, size()).
  struct Loop {
    int64_t num_tasks = 0;
    const Task* body = nullptr;
  };
  // Fills in the next loop; returns false when there is none.
  using NextLoop = std::function<bool(Loop&)>;

  // Computes the loops that `next` gives until there is none. `next` is called by one thread at a time, not always the
  // same one, after all tasks of the loop before it. Where calls throw, the first exception is thrown on once the tasks
  // that had begun have ended; no further loop is started. Not reentrant.
  void run_loops(const NextLoop& next);

  // Computes one loop.
  void run(int64_t num_tasks, const Task& body);

  int size() const { return static_cast<int>(workers_.size()) + 1; }

 private:
  // The tasks of a thread that nobody has taken yet: the round in the upper 32 bits, their number in the lower ones.
  // A thread that is late finds another round there, and takes nothing.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };

  void stop();
  void work(int thread);
  void compute_rounds(int thread);
  void compute_round(uint32_t round, int thread);
  void start_next_loop(int thread);
  void publish(const Loop& loop);
  bool take(uint32_t round, int share, int64_t& task);
  void compute(const Loop& loop, int64_t task, int thread);
  int64_t share_end(int share) const { return loop_.num_tasks * (share + 1) / size(); }

  std::vector<std::thread> workers_;
  std::unique_ptr<Share[]> shares_;  // one for each thread
  const NextLoop* next_ = nullptr;
  Loop loop_;                   // of the running round; written only while no round runs
  std::exception_ptr failure_;  // the first of the running loops
  std::atomic<bool> failed_{false};
  std::atomic<bool> stopping_{false};
  std::mutex failure_mutex_;
  // Even while a loop runs, odd while none does; a loop has the next even number.
  alignas(64) std::atomic<uint32_t> round_{1};
  alignas(64) std::atomic<int64_t> unfinished_{0};  // tasks of the running loop
};

}  // namespace antiphon
