#include "chat/utf8_input.h"

namespace minimax::chat {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

void Utf8Input::feed(unsigned char byte, std::string& out) {
  if (missing_ > 0) {
    if (byte >= lowest_ && byte <= highest_) {
      pending_ += static_cast<char>(byte);
      lowest_ = 0x80;
      highest_ = 0xBF;
      if (--missing_ == 0) {
        out += pending_;
        pending_.clear();
      }
      return;
    }
    out += finish();
  }
  // The second byte's range keeps out overlong forms, surrogates and what is above U+10FFFF.
  if (byte < 0x80) {
    out += static_cast<char>(byte);
  } else if (byte < 0xC2 || byte > 0xF4) {
    out += kReplacement;
  } else {
    pending_ = static_cast<char>(byte);
    missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    lowest_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    highest_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
  }
}

std::string Utf8Input::push(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + pending_.size());
  for (const char c : bytes) feed(static_cast<unsigned char>(c), out);
  return out;
}

std::string Utf8Input::finish() {
  if (missing_ == 0) return {};
  pending_.clear();
  missing_ = 0;
  lowest_ = 0x80;
  highest_ = 0xBF;
  return std::string(kReplacement);
}

}  // namespace minimax::chat
