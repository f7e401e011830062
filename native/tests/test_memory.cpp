// Memory from the system and from an arena: zeroed, aligned, apart from each other, and there as long as its owner.
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "memory.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

uintptr_t address(const Memory& memory) { return reinterpret_cast<uintptr_t>(memory.as<uint8_t>()); }

bool holds(const Memory& memory, uint8_t value) {
  for (size_t i = 0; i < memory.bytes(); i += 1000)
    if (memory.as<uint8_t>()[i] != value) return false;
  return memory.as<uint8_t>()[memory.bytes() - 1] == value;
}

void check_alone() {
  for (const size_t bytes : {size_t{1}, kPageBytes, kHugePageBytes - 1, kHugePageBytes + 1, 3 * kHugePageBytes})
    for (const Pages pages : {Pages::kDefault, Pages::kHuge}) {
      Memory memory(bytes, pages);
      CHECK(memory.bytes() == bytes && holds(memory, 0));
      CHECK(address(memory) % (pages == Pages::kHuge ? kHugePageBytes : kPageBytes) == 0);
      std::memset(memory.as<uint8_t>(), 7, bytes);
      const Memory moved = std::move(memory);
      CHECK(holds(moved, 7));
    }
  bool refused = false;
  try {
    Memory(SIZE_MAX - 10, Pages::kHuge);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  CHECK(refused);
}

// Matrices of less than a huge page share the pages of one slab; parts outlive the arena and each other.
void check_arena() {
  std::vector<Memory> parts;
  {
    Arena arena;
    CHECK(arena.allocate(0).bytes() == 0);
    for (int i = 0; i < 100; ++i) {
      const size_t bytes = i == 50 ? size_t{70} << 20 : size_t{1'500'000} + static_cast<size_t>(i);
      parts.push_back(arena.allocate(bytes));
      CHECK(parts.back().bytes() == bytes && address(parts.back()) % kPageBytes == 0);
    }
  }
  for (int i = 1; i < 40; ++i) CHECK(address(parts[i]) == address(parts[i - 1]) + 1'503'232);
  CHECK(address(parts[0]) % kHugePageBytes == 0 && address(parts[50]) % kHugePageBytes == 0);
  for (size_t i = 0; i < parts.size(); ++i) {
    CHECK(holds(parts[i], 0));
    std::memset(parts[i].as<uint8_t>(), static_cast<int>(i + 1), parts[i].bytes());
  }
  for (size_t i = 0; i < parts.size(); i += 2) parts[i] = Memory();
  for (size_t i = 1; i < parts.size(); i += 2) CHECK(holds(parts[i], static_cast<uint8_t>(i + 1)));
}

void check_several_threads() {
  Arena arena;
  std::vector<Memory> parts[4];
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&arena, &mine = parts[t], t] {
      for (int i = 0; i < 200; ++i) {
        mine.push_back(arena.allocate(10'000));
        std::memset(mine.back().as<uint8_t>(), static_cast<int>(t + 1), 10'000);
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < 4; ++t)
    for (const Memory& part : parts[t]) CHECK(holds(part, static_cast<uint8_t>(t + 1)));
}

}  // namespace

void test_memory() {
  check_alone();
  check_arena();
  check_several_threads();
}

}  // namespace antiphon::tests
