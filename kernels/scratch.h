// Memory that goes from one call to the next: to ask the system for fresh pages every time costs a
// third of drawing 200 000 Gaussians.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace splat {

// At least so many bytes, aligned to a cache line, of undefined content.
void* take_memory(size_t bytes);
void return_memory(void* memory) noexcept;

// An array of undefined content, which may only be moved.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable<T>::value, "nothing is constructed or destroyed");

 public:
  Buffer() = default;
  explicit Buffer(size_t size)
      : data_(static_cast<T*>(take_memory(size * sizeof(T)))), size_(size) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_) return_memory(data_);
  }

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  T* release() noexcept {
    size_ = 0;
    return std::exchange(data_, nullptr);
  }

  T* get() const { return data_; }
  T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace splat
