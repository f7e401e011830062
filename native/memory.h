// Zeroed memory straight from the system, aligned to a page: pages cost nothing until they are touched.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace antiphon {

constexpr size_t kPageBytes = 4096, kHugePageBytes = size_t{2} << 20;

// Huge pages save address translations, but the first byte written to one makes 2 MiB resident. They suit memory that
// is used in pieces of about that size: weights, and the KV pool with all layers of a block next to each other. Such
// memory is aligned to a huge page.
enum class Pages { kDefault, kHuge };

class Memory {
 public:
  Memory() = default;
  // Throws std::bad_alloc.
  explicit Memory(size_t bytes, Pages pages = Pages::kDefault);
  ~Memory();
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  friend class Arena;

  void swap(Memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(slab_, other.slab_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<Memory> slab_;  // of which this is a part, if it is one
};

// Memory for many matrices, in large slabs of huge pages. On its own, a matrix of less than 2 MiB would have none, and
// a larger one would end in small pages. A slab is freed when all of its parts are. Safe to use from several threads.
class Arena {
 public:
  // Throws std::bad_alloc.
  Memory allocate(size_t bytes);

 private:
  std::mutex mutex_;
  std::shared_ptr<Memory> slab_;  // the latest
  size_t used_ = 0;               // bytes of it
};

}  // namespace antiphon
