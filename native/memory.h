// Page-aligned, zeroed memory straight from the system: pages cost nothing until they are touched.
#pragma once
#include <cstddef>
#include <utility>

namespace antiphon {

// Huge pages save address translations, but the first byte written to one makes 2 MiB resident. They suit memory that
// is used in pieces of about that size: weights, and the KV pool with all layers of a block next to each other.
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
  void swap(Memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace antiphon
