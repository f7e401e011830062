// Page-aligned, zeroed memory straight from the system: pages cost nothing until they are touched.
#pragma once
#include <cstddef>
#include <utility>

namespace antiphon {

class Memory {
 public:
  Memory() = default;
  // Throws std::bad_alloc. Huge pages suit what is read whole every step (weights); not what is touched sparsely.
  explicit Memory(size_t bytes, bool huge_pages = false);
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
