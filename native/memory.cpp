#include "memory.h"

#include <sys/mman.h>

#include <new>

namespace antiphon {

Memory::Memory(size_t bytes, Pages pages) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw std::bad_alloc();
  }
  if (pages == Pages::kHuge) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: without it everything still works
}

Memory::~Memory() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace antiphon
