#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>

namespace antiphon {
namespace {

constexpr size_t kSlabBytes = size_t{64} << 20;

constexpr size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void* map(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return data;
}

// A mapping that begins at a multiple of a huge page: what lies before it and after it in a larger one is unmapped.
void* map_aligned(size_t bytes) {
  if (bytes > SIZE_MAX - 2 * kHugePageBytes) throw std::bad_alloc();
  const size_t whole = round_up(bytes, kPageBytes) + kHugePageBytes;
  char* start = static_cast<char*>(map(whole));
  const size_t before =
      round_up(reinterpret_cast<uintptr_t>(start), kHugePageBytes) - reinterpret_cast<uintptr_t>(start);
  const size_t after = kHugePageBytes - before;
  if (before) munmap(start, before);
  if (after) munmap(start + whole - after, after);
  return start + before;
}

}  // namespace

Memory::Memory(size_t bytes, Pages pages) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = pages == Pages::kHuge ? map_aligned(bytes) : map(bytes);
  if (pages == Pages::kHuge) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: without it everything still works
}

Memory::~Memory() {
  if (data_ && !slab_) munmap(data_, bytes_);
}

Memory Arena::allocate(size_t bytes) {
  Memory part;
  if (bytes == 0) return part;
  if (bytes > SIZE_MAX - kHugePageBytes) throw std::bad_alloc();
  const size_t size = round_up(bytes, kPageBytes);
  const std::lock_guard lock(mutex_);
  if (!slab_ || size > slab_->bytes() - used_) {
    slab_ = std::make_shared<Memory>(std::max(kSlabBytes, round_up(size, kHugePageBytes)), Pages::kHuge);
    used_ = 0;
  }
  part.data_ = slab_->as<char>() + used_;
  part.bytes_ = bytes;
  part.slab_ = slab_;
  used_ += size;
  return part;
}

}  // namespace antiphon
