#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "jinja/utf8.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/splitter.h"

namespace minimax::tokenizer {
namespace {

constexpr int32_t kMaxId = 1 << 24;  // ids index a table

struct Entry {
  std::string token;  // as the files spell it
  std::string bytes;
  bool defined = false;
  bool special = false;
};

void define(std::vector<Entry>& entries, int32_t id, const std::string& token, bool special) {
  if (id < 0 || id > kMaxId) fail("tokenizer: token '{}' has the id {}, outside 0..{}", token, id, kMaxId);
  const auto index = static_cast<size_t>(id);
  if (index >= entries.size()) entries.resize(index + 1);
  Entry& entry = entries[index];
  entry.token = token;
  entry.bytes = token_to_bytes(token).value_or(token);
  entry.defined = true;
  entry.special = special;
}

std::vector<Entry> make_entries(const TokenizerSpec& spec) {
  std::vector<Entry> entries;
  for (const auto& [token, id] : spec.vocabulary) define(entries, id, token, false);
  for (const AddedToken& added : spec.added_tokens) define(entries, added.id, added.text, added.special);
  return entries;
}

// A reader of many ids asks for views into the entries, so the texts of added tokens must be valid UTF-8.
TokenizerSpec checked(TokenizerSpec spec) {
  for (AddedToken& token : spec.added_tokens) {
    token.text = jinja::sanitize_utf8(token.text);
    const auto known = spec.vocabulary.find(token.text);
    if (known != spec.vocabulary.end()) token.id = known->second;
  }
  return spec;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerSpec parts)
      : spec(checked(std::move(parts))),
        entries(make_entries(spec)),
        bpe(spec.vocabulary, spec.merges, spec.ignore_merges),
        splitter(spec.split_patterns),
        plain_tokens(spec.added_tokens, false),
        normalized_tokens(spec.added_tokens, true) {
    for (const AddedToken& token : spec.added_tokens) added_ids.try_emplace(token.text, token.id);
    defined = std::count_if(entries.begin(), entries.end(), [](const Entry& e) { return e.defined; });
  }

  const Entry* find(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= entries.size()) return nullptr;
    const Entry& entry = entries[static_cast<size_t>(id)];
    return entry.defined ? &entry : nullptr;
  }

  std::optional<int32_t> id_of(const std::string& token) const {
    if (const auto found = added_ids.find(token); found != added_ids.end()) return found->second;
    const auto found = spec.vocabulary.find(token);
    return found == spec.vocabulary.end() ? std::nullopt : std::optional(found->second);
  }

  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
    for (const std::string_view piece : splitter.split(text)) bpe.encode(piece, ids);
  }

  TokenizerSpec spec;
  std::vector<Entry> entries;
  Bpe bpe;
  Splitter splitter;
  AddedTokenMatcher plain_tokens;
  AddedTokenMatcher normalized_tokens;
  std::unordered_map<std::string, int32_t> added_ids;
  int64_t defined = 0;
};

Tokenizer::Tokenizer(TokenizerSpec spec) : impl_(std::make_unique<const Impl>(std::move(spec))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (!jinja::is_valid_utf8(text)) return encode(jinja::sanitize_utf8(text), options);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  std::vector<Stretch> stretches;
  std::vector<Stretch> parts;
  impl_->plain_tokens.split(text, options.parse_special, stretches);
  for (const Stretch& stretch : stretches) {
    if (stretch.token != nullptr) {
      ids.push_back(stretch.token->id);
      continue;
    }
    parts.clear();
    impl_->normalized_tokens.split(stretch.text, options.parse_special, parts);
    for (const Stretch& part : parts) {
      if (part.token != nullptr) {
        ids.push_back(part.token->id);
      } else {
        impl_->encode_plain(part.text, ids);
      }
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (options.skip_special && is_special(id)) continue;
    bytes += id_to_bytes(id);
  }
  return jinja::sanitize_utf8(bytes);
}

bool Tokenizer::is_defined(int32_t id) const { return impl_->find(id) != nullptr; }

bool Tokenizer::is_special(int32_t id) const {
  const Entry* entry = impl_->find(id);
  return entry != nullptr && entry->special;
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->id_of(std::string(token));
}

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  const Entry* entry = impl_->find(id);
  return entry == nullptr ? std::nullopt : std::optional(entry->token);
}

std::string_view Tokenizer::id_to_bytes(int32_t id) const {
  const Entry* entry = impl_->find(id);
  return entry == nullptr ? std::string_view() : std::string_view(entry->bytes);
}

int64_t Tokenizer::size() const { return impl_->defined; }
int32_t Tokenizer::max_id() const { return static_cast<int32_t>(impl_->entries.size()) - 1; }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->id_of(impl_->spec.bos_token); }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->id_of(impl_->spec.eos_token); }
std::optional<int32_t> Tokenizer::unk_id() const { return impl_->id_of(impl_->spec.unk_token); }
std::optional<int32_t> Tokenizer::pad_id() const { return impl_->id_of(impl_->spec.pad_token); }
const TokenizerSpec& Tokenizer::spec() const { return impl_->spec; }

}  // namespace minimax::tokenizer
