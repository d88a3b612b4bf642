#include "openai/constraint.h"

#include <algorithm>
#include <array>
#include <functional>

#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "openai/error.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;
using grammar::ExprId;
using grammar::GrammarBuilder;

constexpr size_t kMostKnown = 32;
constexpr int64_t kMaxKnownBytes = int64_t{64} << 20;  // of one grammar; larger ones start again
constexpr size_t kMaxTextBytes = size_t{1} << 20;
constexpr int64_t kMaxNewlines = 2;  // between reasoning and answer

class GrammarConstraint final : public engine::TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<grammar::GrammarMasks> masks, std::vector<int32_t> stop_tokens)
      : matcher_(std::move(masks), std::move(stop_tokens)) {}
  void fill_mask(std::span<uint64_t> mask) override { matcher_.fill_mask(mask); }
  void accept(int32_t token) override { matcher_.accept(token); }

 private:
  grammar::GrammarMatcher matcher_;
};

// One way to say what an answer must look like.
struct Wish {
  std::string field;  // for messages
  std::string kind;   // json, json_object, regex, grammar or choice
  Json value;
};

[[noreturn]] void refuse(const std::string& field, const std::string& expected) {
  throw ApiError(field, fmt::format("{}: expected {}", field, expected));
}

const Json* find(const Json& body, const std::string& field) {
  const auto found = body.find(field);
  return found == body.end() || found->is_null() ? nullptr : &*found;
}

void read_response_format(const Json& body, std::vector<Wish>& wishes) {
  const Json* format = find(body, "response_format");
  if (format == nullptr) return;
  const std::string field = "response_format";
  const Json* type = format->is_object() ? find(*format, "type") : nullptr;
  if (type == nullptr || !type->is_string()) refuse(field, "an object with a type");
  if (*type == "text") return;
  if (*type == "json_object") {
    wishes.push_back({field, "json_object", true});
    return;
  }
  if (*type != "json_schema") refuse(field, "type text, json_object or json_schema");
  const Json* named = find(*format, "json_schema");
  const Json* schema = named != nullptr && named->is_object() ? find(*named, "schema") : nullptr;
  if (schema == nullptr) refuse("response_format.json_schema", "an object with a schema");
  wishes.push_back({"response_format.json_schema.schema", "json", *schema});
}

void read_wishes(const Json& object, const std::string& prefix, std::vector<Wish>& wishes) {
  for (const char* kind : {"json", "regex", "grammar", "choice", "json_object"}) {
    const Json* value = find(object, (prefix == "guided_" ? prefix : "") + kind);
    if (value != nullptr && *value != Json(false)) wishes.push_back({prefix + kind, kind, *value});
  }
}

// RETURNS: nothing, or the one wish of a request.
std::optional<Wish> wish_of(const Json& body) {
  std::vector<Wish> wishes;
  read_response_format(body, wishes);
  read_wishes(body, "guided_", wishes);
  if (const Json* structured = find(body, "structured_outputs")) {
    if (!structured->is_object()) refuse("structured_outputs", "an object");
    read_wishes(*structured, "structured_outputs.", wishes);
  }
  if (wishes.empty()) return std::nullopt;
  if (wishes.size() > 1) {
    throw ApiError(wishes[1].field,
                   fmt::format("{} and {} cannot be given together", wishes[0].field, wishes[1].field));
  }
  return wishes.front();
}

ExprId add_choice(GrammarBuilder& builder, const Wish& wish) {
  if (!wish.value.is_array() || wish.value.empty()) refuse(wish.field, "a list of texts");
  std::vector<ExprId> options;
  for (const Json& option : wish.value) {
    if (!option.is_string()) refuse(wish.field, "a list of texts");
    options.push_back(builder.literal(option.get<std::string>()));
  }
  return builder.choice(std::move(options));
}

ExprId add_wish(GrammarBuilder& builder, const Wish& wish) {
  if (wish.kind == "choice") return add_choice(builder, wish);
  if (wish.kind == "json_object") return grammar::JsonText(builder).object();
  const bool is_text = wish.value.is_string();
  if (wish.kind == "json") {
    // vLLM takes a schema as an object or as its text.
    const Json schema = is_text ? Json::parse(wish.value.get<std::string>(), nullptr, false) : wish.value;
    if (schema.is_discarded()) refuse(wish.field, "a JSON schema");
    grammar::JsonText json(builder);
    return grammar::add_json_schema(json, schema);
  }
  if (!is_text) refuse(wish.field, "a text");
  return wish.kind == "regex" ? grammar::add_regex(builder, wish.value.get<std::string>())
                              : grammar::add_gbnf(builder, wish.value.get<std::string>());
}

// The reasoning, where there may be some, before `answer`.
ExprId behind_reasoning(GrammarBuilder& b, const ReasoningPart& reasoning, ExprId answer) {
  if (reasoning.state == ReasoningPart::State::kNone) return answer;
  ExprId part = b.sequence(
      {b.text_without(reasoning.end), b.literal(reasoning.end), b.repeat(b.literal("\n"), 0, kMaxNewlines)});
  if (reasoning.state == ReasoningPart::State::kMayCome) {
    part = b.optional(b.sequence({b.literal(reasoning.begin), part}));
  }
  return b.sequence({part, answer});
}

// Markers that are tokens of their own.
constexpr std::array<std::string_view, 4> kReasoningMarkers{"<think>", "</think>", "<mm:think>",
                                                            "</mm:think>"};
constexpr std::array<std::string_view, 11> kCallMarkers{
    "<tool_calls>", "</tool_calls>", "<minimax:tool_call>", "</minimax:tool_call>",
    "<tool_call>",  "</tool_call>",  "]<]minimax[>[",       "<invoke",
    "</invoke>",    "<parameter",    "</parameter>"};

bool contains(std::span<const std::string_view> texts, std::string_view text) {
  return std::find(texts.begin(), texts.end(), text) != texts.end();
}

}  // namespace

ReasoningPart reasoning_part(const tokenizer::Tokenizer& tokenizer, std::span<const int32_t> prompt) {
  constexpr size_t kTail = 16;
  std::string tail = tokenizer.decode(prompt.last(std::min(kTail, prompt.size())));
  tail.erase(tail.find_last_not_of(" \n") + 1);
  const bool is_m3 = tokenizer.token_to_id("</mm:think>").has_value();
  ReasoningPart part{ReasoningPart::State::kMayCome, is_m3 ? "<mm:think>" : "<think>",
                     is_m3 ? "</mm:think>" : "</think>"};
  if (tail.ends_with(part.end)) part.state = ReasoningPart::State::kNone;
  if (tail.ends_with(part.begin)) part.state = ReasoningPart::State::kOpen;
  return part;
}

// Special and added tokens mean something beyond their text, so no text is spelled with them, but for the
// markers that the grammars themselves hold.
std::shared_ptr<const grammar::TokenTrie> Constraints::trie(bool with_calls) {
  auto& trie = with_calls ? call_trie_ : plain_trie_;
  if (trie != nullptr) return trie;
  std::vector<std::string> texts;
  for (int32_t id = 0; id <= tokenizer_.max_id(); ++id) {
    texts.emplace_back(tokenizer_.is_special(id) ? std::string_view() : tokenizer_.id_to_bytes(id));
  }
  for (const tokenizer::AddedToken& added : tokenizer_.spec().added_tokens) {
    const bool is_marker =
        contains(kReasoningMarkers, added.text) || (with_calls && contains(kCallMarkers, added.text));
    texts.at(static_cast<size_t>(added.id)) = is_marker ? added.text : "";
  }
  trie = std::make_shared<const grammar::TokenTrie>(std::move(texts));
  return trie;
}

template <typename Add>
engine::ConstraintMaker Constraints::maker(const std::string& key, const ReasoningPart& reasoning,
                                           bool with_calls, const std::vector<int32_t>& stop_tokens,
                                           Add&& add) {
  if (key.size() > kMaxTextBytes)
    fail("a grammar or schema of {} bytes; at most {} are taken", key.size(), kMaxTextBytes);
  const std::string full_key = fmt::format("{} {} {}", static_cast<int>(reasoning.state), with_calls, key);
  std::shared_ptr<grammar::GrammarMasks> masks;
  const std::lock_guard lock(mutex_);
  const auto known =
      std::find_if(known_.begin(), known_.end(), [&](const Known& k) { return k.key == full_key; });
  if (known != known_.end() && known->masks->bytes() <= kMaxKnownBytes) {
    masks = known->masks;
    known_.splice(known_.begin(), known_, known);
  } else {
    if (known != known_.end()) known_.erase(known);
    GrammarBuilder builder;
    const ExprId answer = add(builder);
    const grammar::RuleId root = builder.rule("the answer", behind_reasoning(builder, reasoning, answer));
    masks = std::make_shared<grammar::GrammarMasks>(std::move(builder).build(root), trie(with_calls));
    known_.push_front({full_key, masks});
    if (known_.size() > kMostKnown) known_.pop_back();
  }
  return [masks, stop_tokens] { return std::make_unique<GrammarConstraint>(masks, stop_tokens); };
}

engine::ConstraintMaker Constraints::of_body(const Json& body, const ReasoningPart& reasoning,
                                             const std::vector<int32_t>& stop_tokens) {
  const std::optional<Wish> wish = wish_of(body);
  if (!wish) return {};
  if (stop_tokens.empty()) {
    throw ApiError(wish->field,
                   fmt::format("{} needs a stop token to end the answer; leave out ignore_eos", wish->field));
  }
  try {
    const std::string key =
        wish->kind + " " + wish->value.dump(-1, ' ', false, Json::error_handler_t::strict);
    return maker(key, reasoning, false, stop_tokens,
                 [&](GrammarBuilder& builder) { return add_wish(builder, *wish); });
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    throw ApiError(wish->field, fmt::format("{}: {}", wish->field, error.what()));
  } catch (const nlohmann::json::exception&) {
    throw ApiError(wish->field, fmt::format("{} is not UTF-8", wish->field));
  }
}

engine::ConstraintMaker Constraints::of_calls(grammar::CallFormat format,
                                              const std::vector<grammar::CallTool>& tools, bool is_repeated,
                                              const ReasoningPart& reasoning,
                                              const std::vector<int32_t>& stop_tokens) {
  std::string key = fmt::format("calls {} {}", static_cast<int>(format), is_repeated);
  for (const grammar::CallTool& tool : tools) {
    key += Json::array({tool.name, tool.parameters}).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return maker(key, reasoning, true, stop_tokens, [&](GrammarBuilder& builder) {
    return grammar::add_call_block(builder, format, tools, is_repeated);
  });
}

}  // namespace minimax::openai
