#include "checks.h"

namespace splat {
namespace {

std::string type_name(const nb::dlpack::dtype& type) {
  const auto code = static_cast<nb::dlpack::dtype_code>(type.code);
  const std::string bits = std::to_string(type.bits);
  if (code == nb::dlpack::dtype_code::Bool) return "bool";
  if (code == nb::dlpack::dtype_code::Float) return "float" + bits;
  if (code == nb::dlpack::dtype_code::Int) return "int" + bits;
  if (code == nb::dlpack::dtype_code::UInt) return "uint" + bits;
  return "another type of " + bits + " bits";
}

template <typename Iterator>
std::string listed(Iterator begin, Iterator end) {
  std::string text = "[";
  for (Iterator at = begin; at != end; ++at) {
    text += (at == begin ? "" : ", ") + std::to_string(*at);
  }
  return text + "]";
}

// Whether strides are those of a dense array; an axis of length 1 may have any.
bool is_dense(size_t ndim, const int64_t* dimensions, const int64_t* strides) {
  int64_t expected = 1;
  for (size_t i = ndim; i-- > 0;) {
    if (dimensions[i] == 0) return true;
    if (dimensions[i] > 1 && strides != nullptr && strides[i] != expected) return false;
    expected *= dimensions[i];
  }
  return true;
}

// The dimensions before the last ones, as one.
int64_t leading(const int64_t* dimensions, size_t count) {
  int64_t total = 1;
  for (size_t i = 0; i < count; ++i) {
    if (dimensions[i] == 0) return 0;
  }
  for (size_t i = 0; i < count; ++i) total *= dimensions[i];
  return total;
}

}  // namespace

void refuse(const char* name, const std::string& problem) {
  throw nb::value_error((std::string(name) + ": " + problem).c_str());
}

int64_t in_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(name, "must lie in [" + std::to_string(low) + ", " + std::to_string(high) + "], got " +
                     std::to_string(value) + ".");
  }
  return value;
}

int64_t product(const char* name, Shape factors, int64_t limit) {
  int64_t total = 1;
  for (int64_t factor : factors) {
    if (factor == 0) return 0;
  }
  for (int64_t factor : factors) {
    if (factor < 0 || factor > limit / total) {
      refuse(name, listed(factors.begin(), factors.end()) + " multiplied is more than " +
                       std::to_string(limit) + ".");
    }
    total *= factor;
  }
  return total;
}

void check_ascending(const char* name, const int64_t* first, int64_t count, int64_t limit) {
  for (int64_t i = 0; i <= count; ++i) {
    if (first[i] < (i == 0 ? 0 : first[i - 1]) || first[i] > limit) {
      refuse(name, "must ascend from 0 to at most " + std::to_string(limit) + ", got " +
                       std::to_string(first[i]) + " at " + std::to_string(i) + ".");
    }
  }
}

void check_ids(const char* name, const int32_t* ids, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= limit) {
      refuse(name, "must lie in [0, " + std::to_string(limit) + "), got " + std::to_string(ids[i]) +
                       " at " + std::to_string(i) + ".");
    }
  }
}

void check_array(const char* name, const void* data, const nb::dlpack::dtype& is,
                 const nb::dlpack::dtype& wanted, int device, size_t ndim,
                 const int64_t* dimensions, const int64_t* strides, Shape shape) {
  if (!(is == wanted)) {
    refuse(name, "expected " + type_name(wanted) + ", got " + type_name(is) + ".");
  }
  if (device != nb::device::cpu::value) refuse(name, "expected an array on the cpu.");
  const size_t tail = shape.size() - 1, before = ndim - tail;
  bool fits = ndim >= tail && (tail == 0 || ndim > tail);
  fits = fits && leading(dimensions, before) == *shape.begin();
  for (size_t i = 0; fits && i < tail; ++i) {
    fits = dimensions[before + i] == shape.begin()[i + 1];
  }
  if (!fits) {
    refuse(name, "expected shape " + listed(shape.begin(), shape.end()) + ", got " +
                     listed(dimensions, dimensions + ndim) + ".");
  }
  if (!is_dense(ndim, dimensions, strides)) {
    refuse(name, "expected a contiguous array; call .contiguous().");
  }
  if (reinterpret_cast<uintptr_t>(data) % (wanted.bits / 8) != 0) {
    refuse(name, "its memory is not aligned to its type.");
  }
}

}  // namespace splat
