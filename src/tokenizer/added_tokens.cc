#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"

namespace minimax::tokenizer {
namespace {

constexpr size_t kMaxTokenBytes = 4096;

bool is_word_character(char32_t c) {
  return c == '_' || jinja::has_property(c, jinja::Property::kIdContinue) || jinja::is_alnum(c);
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return is_word_character(jinja::decode_utf8(text, begin).code_point);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word_character(jinja::decode_utf8(text, 0).code_point);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized) : nodes_(1) {
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized || token.text.empty()) continue;
    if (token.text.size() > kMaxTokenBytes) fail("tokenizer: an added token of {} bytes", token.text.size());
    size_t node = 0;
    for (const char c : token.text) {
      const auto [it, inserted] =
          nodes_[node].children.try_emplace(static_cast<uint8_t>(c), static_cast<int32_t>(nodes_.size()));
      const auto next = static_cast<size_t>(it->second);
      if (inserted) nodes_.emplace_back();
      node = next;
    }
    nodes_[node].token = &token;
    starts_[static_cast<uint8_t>(token.text[0])] = true;
  }
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t pos) const {
  const AddedToken* best = nullptr;
  size_t node = 0;
  while (pos < text.size()) {
    const auto found = nodes_[node].children.find(static_cast<uint8_t>(text[pos]));
    if (found == nodes_[node].children.end()) break;
    node = static_cast<size_t>(found->second);
    if (nodes_[node].token != nullptr) best = nodes_[node].token;
    ++pos;
  }
  return best;
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special, std::vector<Stretch>& out) const {
  size_t done = 0;
  for (size_t pos = 0; pos < text.size();) {
    const AddedToken* token = starts_[static_cast<uint8_t>(text[pos])] ? longest_at(text, pos) : nullptr;
    if (token == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    size_t end = pos + token->text.size();
    pos = end;
    if (token->special && !parse_special) continue;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token->lstrip) begin -= jinja::trailing_space(text.substr(0, begin));
    begin = std::max(begin, done);
    if (token->rstrip) end += jinja::leading_space(text.substr(end));
    if (begin > done) out.push_back({nullptr, text.substr(done, begin - done)});
    out.push_back({token, text.substr(begin, end - begin)});
    done = end;
    pos = std::max(pos, done);
  }
  if (done < text.size()) out.push_back({nullptr, text.substr(done)});
}

}  // namespace minimax::tokenizer
