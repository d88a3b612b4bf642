// Pieces of text, cut anywhere, to whole valid characters.
#pragma once

#include <string>
#include <string_view>

namespace minimax::chat {

class Utf8Input {
 public:
  // RETURNS: the characters that are complete now, U+FFFD for each ill-formed part. However the bytes are
  // cut, the results joined are the same.
  std::string push(std::string_view bytes);
  // RETURNS: what is left when no more bytes come.
  std::string finish();

 private:
  void feed(unsigned char byte, std::string& out);

  std::string pending_;          // the beginning of one character
  int missing_ = 0;              // bytes it lacks
  unsigned char lowest_ = 0x80;  // of its next byte
  unsigned char highest_ = 0xBF;
};

}  // namespace minimax::chat
