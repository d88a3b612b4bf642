#include "tokenizer/detokenizer.h"

#include "jinja/utf8.h"

namespace minimax::tokenizer {

std::string Detokenizer::push(int32_t id) {
  if (options_.skip_special && tokenizer_->is_special(id)) return {};
  pending_ += tokenizer_->id_to_bytes(id);
  std::string text;
  size_t pos = 0;
  while (pos < pending_.size() && !jinja::is_incomplete_utf8(pending_, pos)) {
    const jinja::DecodedChar c = jinja::decode_utf8(pending_, pos);
    jinja::append_utf8(text, c.code_point);
    pos += c.size;
  }
  pending_.erase(0, pos);
  return text;
}

std::string Detokenizer::finish() {
  std::string text = jinja::sanitize_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace minimax::tokenizer
