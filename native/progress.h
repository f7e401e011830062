// A counter that grows with every piece of work done, so that a process that watches it can tell slow from stuck.
#pragma once
#include <atomic>
#include <cstdint>

namespace antiphon {

class Progress {
 public:
  explicit Progress(uint64_t* counter = nullptr) : counter_(counter) {}  // null: nobody watches

  // Threads may overwrite each other's counts: the counter need only change, and adding under a lock of the line, once
  // a panel, would make them wait for each other.
  void note() const {
    if (!counter_) return;
    std::atomic_ref<uint64_t> counter(*counter_);
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

 private:
  uint64_t* counter_;
};

}  // namespace antiphon
