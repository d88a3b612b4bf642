// Input: a tokenizer.json, then optionally a zero byte and text to encode. A first byte '#' makes it a
// merges.txt.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"
#include "jinja/utf8.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace {

using minimax::tokenizer::Tokenizer;

constexpr size_t kMaxText = 512;

void check_decoding(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  minimax::tokenizer::Detokenizer detokenizer(tokenizer, {.skip_special = skip_special});
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    if (!minimax::jinja::is_valid_utf8(piece)) __builtin_trap();
    streamed += piece;
  }
  streamed += detokenizer.finish();
  if (streamed != tokenizer.decode(ids, {.skip_special = skip_special})) __builtin_trap();
}

void exercise(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {true, false}) {
    std::vector<int32_t> ids = tokenizer.encode(text, {.parse_special = parse_special});
    for (const int32_t id : ids) {
      if (!tokenizer.is_defined(id)) __builtin_trap();
    }
    // Ids as a model might sample them, too.
    for (const char c : text) ids.push_back(static_cast<int8_t>(c) * 3);
    check_decoding(tokenizer, ids, false);
    check_decoding(tokenizer, ids, true);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view file = input.substr(0, zero);
  const std::string_view text = zero == std::string_view::npos ? input : input.substr(zero + 1);
  try {
    const Tokenizer tokenizer(file.starts_with('#') ? minimax::tokenizer::spec_from_merges(file, "")
                                                    : minimax::tokenizer::spec_from_tokenizer_json(file));
    exercise(tokenizer, text.substr(0, kMaxText));
  } catch (const minimax::Error&) {
  }
  return 0;
}
