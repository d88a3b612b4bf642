// Input: a byte that says which kind of request, then the body of one: of completions, chats, responses and
// messages.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "anthropic/request.h"
#include "openai/fields.h"
#include "openai/request.h"
#include "openai/responses_request.h"
#include "tokenizer/byte_alphabet.h"

namespace {

using minimax::openai::CompletionRequest;
using minimax::openai::ServedModel;
using minimax::tokenizer::ChatTemplate;
using minimax::tokenizer::Tokenizer;

constexpr int64_t kContext = 4096;

// A token for each byte.
Tokenizer byte_tokenizer() {
  minimax::tokenizer::TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.vocabulary[minimax::tokenizer::byte_to_character(static_cast<uint8_t>(byte))] = byte;
  }
  return Tokenizer(std::move(spec));
}

void check(const CompletionRequest& parsed) {
  const minimax::engine::Request& request = parsed.request;
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length < 1 || request.max_tokens < 1 || length + request.max_tokens > kContext) __builtin_trap();
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens || request.n < 1) __builtin_trap();
  for (const int64_t boundary : request.boundaries) {
    if (boundary < 0 || boundary > length) __builtin_trap();
  }
  request.sampling.check();
}

CompletionRequest parse(uint8_t kind, const nlohmann::ordered_json& body, const ServedModel& model) {
  static minimax::openai::ResponseStore store(8, int64_t{1} << 20U);
  if (!store.get("resp_1")) store.put("resp_1", {"{}", R"([{"role": "user", "content": "hi"}])"});
  switch (kind % 4) {
    case 0:
      return parse_completion(body, model);
    case 1:
      return parse_chat_completion(body, model);
    case 2:
      return parse_responses(body, model, store).completion;
    default:
      return minimax::anthropic::parse_messages(body, model);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizer = byte_tokenizer();
  static const ChatTemplate chat_template(minimax::tokenizer::builtin_m1_template());
  static const ServedModel model{"fuzz", &tokenizer, &chat_template, {}, {0}, kContext, nullptr};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const auto body = minimax::openai::parse_json(text);
    check(parse(data[0], body, model));
  } catch (const minimax::openai::ApiError& error) {
    minimax::openai::dump_json(error.body());
  }
  return 0;
}
