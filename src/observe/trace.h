// A trace of steps in Chrome's trace event format: open it in chrome://tracing or Perfetto.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <mutex>
#include <string_view>
#include <utility>

namespace minimax::observe {

class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  using Fields = std::initializer_list<std::pair<std::string_view, int64_t>>;

  // THROWS: Error when the file cannot be written.
  explicit Trace(const std::filesystem::path& path);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // One bar of the row `track`. Safe from any thread. `name` and `track` are plain words.
  void add(std::string_view track, std::string_view name, Clock::time_point begin, Clock::time_point end,
           Fields fields = {});

 private:
  std::mutex mutex_;
  std::ofstream file_;
  Clock::time_point start_ = Clock::now();
  bool is_first_ = true;
};

}  // namespace minimax::observe
