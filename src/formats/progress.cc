#include "formats/progress.h"

#include <fmt/format.h>

namespace minimax::formats {
namespace {

constexpr int64_t kBarWidth = 30;
constexpr double kGigabyte = 1e9;

}  // namespace

void TextProgress::start(std::string_view what, int64_t total_bytes) {
  what_ = what;
  total_bytes_ = total_bytes;
  done_bytes_ = 0;
  shown_percent_ = -1;
  start_time_ = Clock::now();
  advance(0);
}

void TextProgress::advance(int64_t bytes) {
  done_bytes_ += bytes;
  const int64_t step = is_terminal_ ? 1 : 10;
  const int64_t reached = percent() / step * step;
  if (reached == shown_percent_) return;
  shown_percent_ = reached;
  if (is_terminal_) {
    draw_bar();
  } else {
    print_line();
  }
}

void TextProgress::finish() {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_time_).count();
  out_ << fmt::format("{}{}: {:.2f} GB in {:.1f} s\n", is_terminal_ ? "\r\x1b[K" : "", what_,
                      static_cast<double>(done_bytes_) / kGigabyte, seconds)
       << std::flush;
}

int64_t TextProgress::percent() const {
  if (total_bytes_ <= 0) return 100;
  return static_cast<int64_t>(100.0 * static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_));
}

void TextProgress::draw_bar() {
  const int64_t filled = percent() * kBarWidth / 100;
  out_ << fmt::format("\r\x1b[K{} [{:=<{}}{:<{}}] {:3d} %  {:.2f} / {:.2f} GB", what_, "", filled, "",
                      kBarWidth - filled, percent(), static_cast<double>(done_bytes_) / kGigabyte,
                      static_cast<double>(total_bytes_) / kGigabyte)
       << std::flush;
}

void TextProgress::print_line() {
  out_ << fmt::format("{}: {} % of {:.2f} GB\n", what_, shown_percent_,
                      static_cast<double>(total_bytes_) / kGigabyte)
       << std::flush;
}

}  // namespace minimax::formats
