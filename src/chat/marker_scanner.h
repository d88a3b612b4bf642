// Finds markers in text that comes byte by byte, and holds back what may still become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace minimax::chat {

class MarkerScanner {
 public:
  static constexpr int kNone = -1;

  // REQUIRES: no marker is the beginning of another; the texts outlive this.
  explicit MarkerScanner(std::vector<std::string_view> markers) : markers_(std::move(markers)) {}

  // Appends to `text` what can no longer belong to a marker. RETURNS: the marker that `c` completes, by its
  // place in the list, else kNone.
  int feed(char c, std::string& text);

  // RETURNS: what is held back, and holds nothing afterwards.
  std::string take_held();

  std::string_view marker(int index) const { return markers_[static_cast<size_t>(index)]; }

 private:
  std::vector<std::string_view> markers_;
  std::string held_;  // the beginning of at least one marker, or empty
};

}  // namespace minimax::chat
