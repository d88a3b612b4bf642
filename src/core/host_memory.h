// HostMemory: zeroed pages, huge ones where the system has them, that cost nothing until they are touched.
//
// Caches are sized for the longest context and used from the front, so their memory grows with use and never
// moves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace minimax {

class HostMemory {
 public:
  HostMemory() = default;
  // THROWS: Error when the address space cannot be reserved.
  explicit HostMemory(int64_t bytes);
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  HostMemory& operator=(HostMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  int64_t size_bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Bytes of memory the system could give now without swapping.
int64_t available_memory_bytes();

}  // namespace minimax
