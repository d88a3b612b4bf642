// What one render has used of its limits.
#pragma once

#include <cstdint>

#include "core/error.h"
#include "jinja/limits.h"

namespace minimax::jinja {

class Meter {
 public:
  explicit Meter(const Limits& limits) : limits_(limits) {}

  // THROWS: Error when the render's steps are used up.
  void step(int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) {
      fail("the template takes more than {} steps; raise max_steps if it is trusted", limits_.max_steps);
    }
  }
  // The cost of looking through `bytes` bytes.
  void scan(int64_t bytes) { step(1 + bytes / 64); }
  // Called before memory is taken. THROWS: Error when the render's memory is used up.
  void allocate(int64_t bytes) {
    scan(bytes);
    if (bytes > limits_.max_value_bytes - value_bytes_) {
      fail("the template makes more than {} bytes of values; raise max_value_bytes if it is trusted",
           limits_.max_value_bytes);
    }
    value_bytes_ += bytes;
  }
  // Like allocate(count * size) without overflow.
  void allocate(int64_t count, int64_t size) {
    if (count > 0 && size > limits_.max_value_bytes / count) {
      fail("a value of {} x {} bytes is above the template's limit of {} bytes", count, size,
           limits_.max_value_bytes);
    }
    allocate(count * size);
  }

  const Limits& limits() const { return limits_; }

 private:
  Limits limits_;
  int64_t steps_ = 0;
  int64_t value_bytes_ = 0;
};

}  // namespace minimax::jinja
