#include "engine/text_stream.h"

#include <algorithm>

namespace minimax::engine {

TextStream::TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
                       const tokenizer::DecodeOptions& options)
    : detokenizer_(tokenizer, options), stop_(std::move(stop)) {
  std::erase(stop_, "");
}

std::string TextStream::push(int32_t id) {
  if (is_stopped()) return {};
  held_ += detokenizer_.push(id);
  return release(false);
}

std::string TextStream::finish() {
  if (is_stopped()) return {};
  held_ += detokenizer_.finish();
  return release(true);
}

std::string TextStream::release(bool is_end) {
  size_t end = held_.size();
  for (const std::string& stop : stop_) {
    if (const size_t found = held_.find(stop); found != std::string::npos && found <= end) {
      end = found;
      found_ = stop;
    }
  }
  if (!is_stopped() && !is_end) {
    // The earliest place from which the rest is the beginning of a stop string.
    for (const std::string& stop : stop_) {
      const size_t longest = std::min(stop.size() - 1, held_.size());
      for (size_t length = longest; length > 0; --length) {
        if (std::string_view(held_).substr(held_.size() - length) ==
            std::string_view(stop).substr(0, length)) {
          end = std::min(end, held_.size() - length);
          break;
        }
      }
    }
  }
  std::string text = held_.substr(0, end);
  held_.erase(0, end);
  return text;
}

}  // namespace minimax::engine
