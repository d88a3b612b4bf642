// Progress of a load: the loader reports bytes, the caller decides how they look.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>

namespace minimax::formats {

// Ignores everything; the base of the others.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void start(std::string_view /*what*/, int64_t /*total_bytes*/) {}
  virtual void advance(int64_t /*bytes*/) {}
  virtual void finish() {}
  // One line of news that belongs to the load, e.g. what was left out.
  virtual void note(std::string_view /*line*/) {}
};

// A bar that is redrawn in place on a terminal, one plain line per 10 % elsewhere.
class TextProgress : public Progress {
 public:
  using Clock = std::chrono::steady_clock;

  // Amounts are bytes, or counts of `unit`. REQUIRES: `out` outlives the object.
  TextProgress(std::ostream& out, bool is_terminal, std::string_view unit = {})
      : out_(out), is_terminal_(is_terminal), unit_(unit) {}
  TextProgress(const TextProgress&) = delete;
  TextProgress& operator=(const TextProgress&) = delete;
  // Ends the line of a bar that an error cut short.
  ~TextProgress() override;

  void start(std::string_view what, int64_t total_bytes) override;
  void advance(int64_t bytes) override;
  void finish() override;
  void note(std::string_view line) override;

 private:
  std::string amount(int64_t count) const;
  int64_t percent() const;
  void draw_bar();
  void print_line();

  std::ostream& out_;
  bool is_terminal_;
  std::string unit_;
  bool is_running_ = false;
  std::string what_;
  int64_t total_bytes_ = 0;
  int64_t done_bytes_ = 0;
  int64_t shown_percent_ = -1;
  Clock::time_point start_time_;
};

}  // namespace minimax::formats
