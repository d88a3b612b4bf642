// Arena: scratch memory for activations, planned once and allocated once.
//
// Allocation is a bump of an offset; a Scope frees everything made since it began. A planning arena hands
// out addresses that must not be touched and only measures the peak; a real one throws when it is too small.
// Not thread-safe: one arena belongs to one step at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "core/memory.h"
#include "core/tensor.h"

namespace minimax {

class Arena {
 public:
  static constexpr int64_t kAlignment = 64;

  // A planning arena: measures, owns nothing. Its tensors claim to be on `device`.
  Arena() = default;
  explicit Arena(Device device) : device_(device) {}
  // A real arena, in the host's memory. THROWS: Error when the memory cannot be had.
  explicit Arena(int64_t capacity_bytes);
  // One in a device's memory, whose size is its capacity.
  explicit Arena(Memory memory);

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  bool is_planning() const { return memory_.data() == nullptr; }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity_bytes() const { return capacity_; }

  // THROWS: InternalError when a real arena is exhausted: the plan did not cover this step.
  Tensor tensor(std::string_view name, DType dtype, std::initializer_list<int64_t> shape);
  std::byte* bytes(int64_t count);

  // False for memory of this arena whose scope has ended; true for any other memory.
  bool is_alive(const void* data) const;

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t mark_;
  };

 private:
  std::byte* base() const;

  Memory memory_;
  Device device_{};
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

}  // namespace minimax
