#include "chat/marker_scanner.h"

#include <algorithm>
#include <utility>

namespace minimax::chat {

int MarkerScanner::feed(char c, std::string& text) {
  held_ += c;
  while (!held_.empty()) {
    const auto found = std::find_if(markers_.begin(), markers_.end(),
                                    [this](std::string_view marker) { return marker.starts_with(held_); });
    if (found != markers_.end()) {
      if (found->size() != held_.size()) return kNone;
      held_.clear();
      return static_cast<int>(found - markers_.begin());
    }
    text += held_.front();
    held_.erase(0, 1);
  }
  return kNone;
}

std::string MarkerScanner::take_held() { return std::exchange(held_, {}); }

}  // namespace minimax::chat
