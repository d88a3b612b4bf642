#include "formats/progress.h"

#include <fmt/format.h>

namespace minimax::formats {
namespace {

constexpr int64_t kBarWidth = 30;

}  // namespace

// "1.50 GB", or "1.50 MB" for small models; "12 requests".
std::string TextProgress::amount(int64_t count) const {
  constexpr int64_t kGigabyte = 1'000'000'000;
  if (!unit_.empty()) return fmt::format("{} {}", count, unit_);
  const auto value = static_cast<double>(count);
  return count >= kGigabyte ? fmt::format("{:.2f} GB", value / 1e9) : fmt::format("{:.2f} MB", value / 1e6);
}

TextProgress::~TextProgress() {
  if (is_running_ && is_terminal_) out_ << '\n' << std::flush;
}

void TextProgress::start(std::string_view what, int64_t total_bytes) {
  what_ = what;
  total_bytes_ = total_bytes;
  done_bytes_ = 0;
  shown_percent_ = -1;
  start_time_ = Clock::now();
  is_running_ = true;
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
  is_running_ = false;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_time_).count();
  out_ << fmt::format("{}{}: {} in {:.1f} s\n", is_terminal_ ? "\r\x1b[K" : "", what_, amount(done_bytes_),
                      seconds)
       << std::flush;
}

void TextProgress::note(std::string_view line) { out_ << "minimax: " << line << "\n" << std::flush; }

int64_t TextProgress::percent() const {
  if (total_bytes_ <= 0) return 100;
  return static_cast<int64_t>(100.0 * static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_));
}

void TextProgress::draw_bar() {
  const int64_t filled = percent() * kBarWidth / 100;
  out_ << fmt::format("\r\x1b[K{} [{:=<{}}{:<{}}] {:3d} %  {} of {}", what_, "", filled, "",
                      kBarWidth - filled, percent(), amount(done_bytes_), amount(total_bytes_))
       << std::flush;
}

void TextProgress::print_line() {
  out_ << fmt::format("{}: {} % of {}\n", what_, shown_percent_, amount(total_bytes_)) << std::flush;
}

}  // namespace minimax::formats
