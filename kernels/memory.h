// Memory is compared with what is there before it is asked for.
#pragma once

#include <cstdint>
#include <new>
#include <string>

namespace splat {

// Becomes Python's MemoryError.
class NotEnoughMemory : public std::bad_alloc {
 public:
  explicit NotEnoughMemory(std::string sentence) : sentence_(std::move(sentence)) {}
  const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  std::string sentence_;
};

// Throws NotEnoughMemory if `count` items of `bytes` each, which `what` names, are more than this
// process can have now. Small ones are not looked at.
void require_memory(int64_t count, int64_t bytes, const char* what);

}  // namespace splat
