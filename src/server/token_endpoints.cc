#include "server/token_endpoints.h"

#include "openai/fields.h"
#include "openai/messages.h"

namespace minimax::server {
namespace {

using Json = nlohmann::ordered_json;

std::string prompt_of(const Json& body, const openai::ServedModel& model) {
  if (const auto prompt = openai::text(body, "prompt")) return *prompt;
  if (model.chat_template == nullptr)
    openai::refuse("prompt", nullptr, "a string: this model has no chat template");
  const Json messages = openai::read_messages(body, *model.chat_template);
  const Json tools = openai::read_tools(body, openai::read_tool_choice(body));
  const Json* variables = openai::find(body, "chat_template_kwargs");
  if (variables != nullptr && !variables->is_object())
    openai::refuse("chat_template_kwargs", *variables, "an object");
  const bool adds_turn = openai::boolean(body, "add_generation_prompt", true);
  try {
    return model.chat_template
        ->render(messages, tools, adds_turn, variables == nullptr ? Json(nullptr) : *variables)
        .text;
  } catch (const Error& error) {
    throw openai::ApiError("messages",
                           fmt::format("the chat template refuses the messages: {}", error.what()));
  }
}

}  // namespace

Json tokenize(const Json& body, const openai::ServedModel& model) {
  const std::vector<int32_t> ids = model.tokenizer->encode(prompt_of(body, model));
  Json strings = nullptr;
  if (openai::boolean(body, "return_token_strs", false)) {
    strings = Json::array();
    for (const int32_t id : ids) strings.push_back(model.tokenizer->id_to_token(id).value_or(""));
  }
  return {{"count", ids.size()},
          {"max_model_len", model.max_model_len},
          {"tokens", ids},
          {"token_strs", strings}};
}

Json detokenize(const Json& body, const openai::ServedModel& model) {
  const Json* tokens = openai::find(body, "tokens");
  if (tokens == nullptr) openai::refuse("tokens", nullptr, "a list of token ids");
  return {{"prompt", model.tokenizer->decode(openai::token_ids(*tokens, "tokens"))}};
}

}  // namespace minimax::server
