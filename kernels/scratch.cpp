#include "scratch.h"

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>

namespace splat {
namespace {

constexpr size_t kLine = 64;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kWorthKeeping = ~size_t{0};  // it sees no overflow into a block that is kept
#else
constexpr size_t kWorthKeeping = 32 << 10;  // the allocator is quick with what is smaller
#endif
constexpr size_t kKept = 256 << 20;  // bytes; what is beyond goes back, oldest first

// Before every block, a line that says how long the block is.
struct Header {
  size_t bytes;
};

// Sizes are rounded up by an eighth at most, so that arrays which grow find room in old blocks.
size_t rounded(size_t bytes) {
  if (bytes < kWorthKeeping) return bytes;
  size_t step = kLine;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

char* allocate(size_t bytes) {
#if defined(_MSC_VER)
  void* raw = _aligned_malloc(kLine + bytes, kLine);
#else
  void* raw = nullptr;
  if (posix_memalign(&raw, kLine, kLine + bytes) != 0) raw = nullptr;
#endif
  if (raw == nullptr) throw std::bad_alloc();
  reinterpret_cast<Header*>(raw)->bytes = bytes;
  return static_cast<char*>(raw);
}

void release(char* raw) {
#if defined(_MSC_VER)
  _aligned_free(raw);
#else
  std::free(raw);
#endif
}

size_t size_of(const char* raw) { return reinterpret_cast<const Header*>(raw)->bytes; }

class Shelf {
 public:
  char* take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto at = blocks_.rbegin(); at != blocks_.rend(); ++at) {
      if (size_of(*at) != bytes) continue;
      char* raw = *at;
      blocks_.erase(std::next(at).base());
      kept_ -= bytes;
      return raw;
    }
    return nullptr;
  }

  void put(char* raw) {
    std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(raw);
    for (kept_ += size_of(raw); kept_ > kKept; blocks_.pop_front()) {
      kept_ -= size_of(blocks_.front());
      release(blocks_.front());
    }
  }

 private:
  std::mutex mutex_;
  std::deque<char*> blocks_;
  size_t kept_ = 0;
};

// Never destroyed: tensors may return their memory while the process ends.
Shelf& shelf() {
  static Shelf* shelf = new Shelf();
  return *shelf;
}

}  // namespace

void* take_memory(size_t bytes) {
  const size_t wanted = rounded(bytes == 0 ? 1 : bytes);
  char* raw = wanted < kWorthKeeping ? nullptr : shelf().take(wanted);
  return (raw ? raw : allocate(wanted)) + kLine;
}

void return_memory(void* memory) noexcept {
  char* raw = static_cast<char*>(memory) - kLine;
  if (size_of(raw) < kWorthKeeping) return release(raw);
  shelf().put(raw);
}

}  // namespace splat
