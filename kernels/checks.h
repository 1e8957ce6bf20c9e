// The door between Python and the kernels: no array's memory is reached but through here, and no
// size but those that pass here is multiplied or allocated. A kernel itself checks nothing.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

namespace splat {

namespace nb = nanobind;

using Given = nb::ndarray<nb::ro>;  // of any type, on any device, until it is checked
using Room = nb::ndarray<>;         // the same, to be written
using MaybeGiven = std::optional<Given>;
using MaybeRoom = std::optional<Room>;
using Shape = std::initializer_list<int64_t>;

constexpr int64_t kSideMax = 65535LL * 16;       // pixels: tiles are counted in 16 bits
constexpr int64_t kTilesMax = int64_t{1} << 26;  // of all cameras
constexpr int64_t kSplatsMax = INT32_MAX;        // of all cameras
constexpr int64_t kNumbersMax = int64_t{1} << 40;
constexpr int64_t kThreadsMax = 1024;

// Throws ValueError:  "name: problem".
[[noreturn]] void refuse(const char* name, const std::string& problem);

// Throws ValueError unless value lies in [low, high].
int64_t in_range(const char* name, int64_t value, int64_t low, int64_t high);

// Returns the product, or throws ValueError if it is above the limit. No factor is negative.
int64_t product(const char* name, Shape factors, int64_t limit);

// Throws ValueError unless first[0..count] ascends within [0, limit].
void check_ascending(const char* name, const int64_t* first, int64_t count, int64_t limit);

// Throws ValueError unless every id lies in [0, limit).
void check_ids(const char* name, const int32_t* ids, int64_t count, int64_t limit);

// Throws ValueError unless the array is dense, aligned, of this type, on the CPU, and its last
// dimensions are those of `shape`, whose first number counts all dimensions before them.
void check_array(const char* name, const void* data, const nb::dlpack::dtype& is,
                 const nb::dlpack::dtype& wanted, int device, size_t ndim,
                 const int64_t* dimensions, const int64_t* strides, Shape shape);

template <typename T, typename Array>
auto* checked(const char* name, const Array& array, Shape shape) {
  check_array(name, array.data(), array.dtype(), nb::dtype<T>(), array.device_type(), array.ndim(),
              array.shape_ptr(), array.stride_ptr(), shape);
  return array.data();
}

template <typename T>
const T* in(const char* name, const Given& array, Shape shape) {
  return static_cast<const T*>(checked<T>(name, array, shape));
}

template <typename T>
const T* in(const char* name, const MaybeGiven& array, Shape shape) {
  return array ? in<T>(name, *array, shape) : nullptr;
}

template <typename T>
T* out(const char* name, const Room& array, Shape shape) {
  return static_cast<T*>(checked<T>(name, array, shape));
}

template <typename T>
T* out(const char* name, const MaybeRoom& array, Shape shape) {
  return array ? out<T>(name, *array, shape) : nullptr;
}

// One dimension of an array; ValueError if there is no such one.
template <typename Array>
int64_t dimension(const char* name, const Array& array, size_t i, size_t of) {
  if (array.ndim() != of) {
    refuse(name, "expected " + std::to_string(of) + " dimensions, got " +
                     std::to_string(array.ndim()) + ".");
  }
  return static_cast<int64_t>(array.shape(i));
}

// Numbers in an array.
template <typename Array>
int64_t size_of(const Array& array) {
  return static_cast<int64_t>(array.size());
}

}  // namespace splat
