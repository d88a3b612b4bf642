// Memory: a run of bytes of one device, owned. The host's come from HostMemory, others from their backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/tensor.h"

namespace minimax {

class Memory {
 public:
  Memory() = default;
  // `release` gives the bytes back.
  Memory(std::byte* data, int64_t bytes, Device device, std::function<void(std::byte*)> release)
      : data_(data, std::move(release)), bytes_(bytes), device_(device) {}

  // Zeroed pages of the host. THROWS: Error when the address space cannot be reserved.
  static Memory host(int64_t bytes);

  std::byte* data() const { return data_.get(); }
  int64_t size_bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  std::unique_ptr<std::byte, std::function<void(std::byte*)>> data_{nullptr, [](std::byte*) {}};
  int64_t bytes_ = 0;
  Device device_{};
};

}  // namespace minimax
