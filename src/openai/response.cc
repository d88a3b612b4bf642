#include "openai/response.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

std::string_view finish_reason(engine::FinishReason reason) {
  return reason == engine::FinishReason::kLength ? "length" : "stop";
}

Json token_json(const ServedModel& model, int32_t id, float logprob) {
  const std::string_view bytes = model.tokenizer->id_to_bytes(id);
  Json values = Json::array();
  for (const char c : bytes) values.push_back(static_cast<unsigned char>(c));
  const int32_t ids[] = {id};
  return {{"token", model.tokenizer->decode(ids)}, {"logprob", logprob}, {"bytes", values}};
}

Json chat_logprobs(const ServedModel& model, const TextSample& sample) {
  Json content = Json::array();
  for (const engine::SampledToken& token : sample.tokens) {
    Json entry = token_json(model, token.id, token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const auto& [id, logprob] : token.top)
      entry["top_logprobs"].push_back(token_json(model, id, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", content}};
}

Json text_logprobs(const ServedModel& model, const TextSample& sample) {
  Json result = {
      {"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"top_logprobs", Json::array()}};
  for (const engine::SampledToken& token : sample.tokens) {
    const int32_t ids[] = {token.id};
    result["tokens"].push_back(model.tokenizer->decode(ids));
    result["token_logprobs"].push_back(token.logprob);
    Json top = Json::object();
    for (const auto& [id, logprob] : token.top) {
      const int32_t other[] = {id};
      top[model.tokenizer->decode(other)] = logprob;
    }
    result["top_logprobs"].push_back(std::move(top));
  }
  return result;
}

Json choice(const CompletionRequest& request, const ServedModel& model, const TextSample& sample) {
  Json result = {{"index", sample.finish.sample}};
  if (request.is_chat) {
    result["message"] = {{"role", "assistant"}, {"content", sample.text}};
    result["logprobs"] = request.wants_logprobs ? chat_logprobs(model, sample) : Json(nullptr);
  } else {
    const std::string echoed = request.echo ? model.tokenizer->decode(request.request.prompt) : "";
    result["text"] = echoed + sample.text;
    result["logprobs"] = request.wants_logprobs ? text_logprobs(model, sample) : Json(nullptr);
  }
  result["finish_reason"] = finish_reason(sample.finish.reason);
  return result;
}

}  // namespace

Json completion_body(const CompletionRequest& request, const ServedModel& model,
                     const std::vector<TextSample>& samples, const ResponseInfo& info) {
  Json choices = Json::array();
  int64_t generated = 0;
  int64_t cached = 0;
  for (const TextSample& sample : samples) {
    choices.push_back(choice(request, model, sample));
    generated += sample.finish.num_tokens;
    cached = std::max(cached, sample.finish.cached_tokens);
  }
  const auto prompt = static_cast<int64_t>(request.request.prompt.size());
  Json usage = {
      {"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
  if (info.reports_cached_tokens) usage["prompt_tokens_details"] = {{"cached_tokens", cached}};
  return {{"id", info.id},           {"object", request.is_chat ? "chat.completion" : "text_completion"},
          {"created", info.created}, {"model", model.name},
          {"choices", choices},      {"usage", usage}};
}

}  // namespace minimax::openai
