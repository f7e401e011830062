// What this machine can do at best, measured: the rate of reading memory, and of multiplying and adding small integers.
// For benchmarks, which tell kernels' figures as shares of these; nothing that serves knows this file.
#pragma once
#include <cstddef>
#include <string>

#include "memory.h"
#include "thread_pool.h"

namespace antiphon {

// Memory much larger than any cache, read by all threads of a pool.
class MemoryReader {
 public:
  MemoryReader(size_t bytes, ThreadPool& pool);
  // Bytes a second of one pass over all of it.
  double bytes_per_second(ThreadPool& pool) const;

 private:
  Memory memory_;
};

// Products of two 8-bit integers a second, added up in registers by the widest instructions of an instruction set, all
// threads together; none of them reads memory. `seconds` is about how long to try. Throws std::invalid_argument for a
// name that has no such loop here.
double products_per_second(const std::string& instruction_set, double seconds, ThreadPool& pool);

// Seconds from the end of one parallel loop to the end of the next one, whose tasks (one for each thread) do nothing.
// The median of several trials of 1,000 loops.
double seconds_per_loop(ThreadPool& pool);

}  // namespace antiphon
