#include "openai/response.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;
using Tokens = std::span<const engine::SampledToken>;

Json token_json(const ServedModel& model, int32_t id, float logprob) {
  const std::string_view bytes = model.tokenizer->id_to_bytes(id);
  Json values = Json::array();
  for (const char c : bytes) values.push_back(static_cast<unsigned char>(c));
  const int32_t ids[] = {id};
  return {{"token", model.tokenizer->decode(ids)}, {"logprob", logprob}, {"bytes", values}};
}

Json chat_logprobs(const ServedModel& model, Tokens tokens) {
  Json content = Json::array();
  for (const engine::SampledToken& token : tokens) {
    Json entry = token_json(model, token.id, token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const auto& [id, logprob] : token.top)
      entry["top_logprobs"].push_back(token_json(model, id, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", content}};
}

Json text_logprobs(const ServedModel& model, Tokens tokens) {
  Json result = {
      {"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"top_logprobs", Json::array()}};
  for (const engine::SampledToken& token : tokens) {
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

// The response's own id makes it one that no other answer of a conversation has.
std::string call_id(const ResponseInfo& info, int32_t sample, size_t index) {
  return fmt::format("call_{}_{}_{}", info.id.substr(info.id.find('-') + 1), sample, index);
}

Json call_json(const ResponseInfo& info, int32_t sample, size_t index, const std::string& name,
               const std::string& arguments) {
  return {{"id", call_id(info, sample, index)},
          {"type", "function"},
          {"function", {{"name", name}, {"arguments", arguments}}}};
}

Json message(const TextSample& sample, const ResponseInfo& info) {
  Json result = {{"role", "assistant"}, {"content", sample.text}};
  if (!sample.is_parsed) return result;
  Json calls = Json::array();
  for (size_t i = 0; i < sample.calls.size(); ++i) {
    const ToolCall& call = sample.calls[i];
    if (call.is_whole) calls.push_back(call_json(info, sample.finish.sample, i, call.name, call.arguments));
  }
  if (!calls.empty() && sample.text.find_first_not_of(" \n\r\t") == std::string::npos)
    result["content"] = nullptr;
  result["reasoning_content"] = sample.reasoning.empty() ? Json(nullptr) : Json(sample.reasoning);
  result["reasoning"] = result["reasoning_content"];
  if (!calls.empty()) result["tool_calls"] = std::move(calls);
  return result;
}

Json choice(const CompletionRequest& request, const ServedModel& model, const TextSample& sample,
            const ResponseInfo& info) {
  Json result = {{"index", sample.finish.sample}};
  if (request.is_chat) {
    result["message"] = message(sample, info);
    result["logprobs"] = request.wants_logprobs ? chat_logprobs(model, sample.tokens) : Json(nullptr);
  } else {
    const std::string echoed = request.echo ? model.tokenizer->decode(request.request.prompt) : "";
    result["text"] = echoed + sample.text;
    result["logprobs"] = request.wants_logprobs ? text_logprobs(model, sample.tokens) : Json(nullptr);
  }
  result["finish_reason"] = sample.finish_reason();
  return result;
}

Json usage(const CompletionRequest& request, std::span<const TextSample> samples, const ResponseInfo& info) {
  int64_t generated = 0;
  int64_t reasoning = 0;
  int64_t cached = 0;
  bool is_parsed = false;
  for (const TextSample& sample : samples) {
    generated += sample.finish.num_tokens;
    reasoning += sample.reasoning_tokens;
    cached = std::max(cached, sample.finish.cached_tokens);
    is_parsed = is_parsed || sample.is_parsed;
  }
  const auto prompt = static_cast<int64_t>(request.request.prompt.size());
  Json result = {
      {"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
  if (info.reports_cached_tokens) result["prompt_tokens_details"] = {{"cached_tokens", cached}};
  if (is_parsed) result["completion_tokens_details"] = {{"reasoning_tokens", reasoning}};
  return result;
}

const std::string& model_name(const CompletionRequest& request, const ServedModel& model) {
  return request.model.empty() ? model.name : request.model;
}

}  // namespace

Json completion_body(const CompletionRequest& request, const ServedModel& model,
                     const std::vector<TextSample>& samples, const ResponseInfo& info) {
  Json choices = Json::array();
  for (const TextSample& sample : samples) choices.push_back(choice(request, model, sample, info));
  return {{"id", info.id},           {"object", request.is_chat ? "chat.completion" : "text_completion"},
          {"created", info.created}, {"model", model_name(request, model)},
          {"choices", choices},      {"usage", usage(request, samples, info)}};
}

// --- chunks -----------------------------------------------------------------------------------------------

Json ChunkWriter::chunk(Json choice) const {
  Json result = {{"id", info_.id},
                 {"object", request_.is_chat ? "chat.completion.chunk" : "text_completion"},
                 {"created", info_.created},
                 {"model", model_name(request_, model_)},
                 {"choices", Json::array({std::move(choice)})}};
  if (request_.includes_usage) result["usage"] = nullptr;
  return result;
}

Json ChunkWriter::logprobs(Tokens tokens) {
  const Tokens fresh = tokens.subspan(std::min(num_tokens_, tokens.size()));
  num_tokens_ = tokens.size();
  if (!request_.wants_logprobs) return nullptr;
  return request_.is_chat ? chat_logprobs(model_, fresh) : text_logprobs(model_, fresh);
}

Json ChunkWriter::chat_chunk(Json delta, Tokens tokens) {
  return chunk({{"index", sample_},
                {"delta", std::move(delta)},
                {"logprobs", logprobs(tokens)},
                {"finish_reason", nullptr}});
}

void ChunkWriter::add_chat(const chat::OutputDelta& delta, Tokens tokens, std::vector<Json>& chunks) {
  if (!delta.reasoning.empty()) {
    chunks.push_back(
        chat_chunk({{"reasoning_content", delta.reasoning}, {"reasoning", delta.reasoning}}, tokens));
  }
  if (!delta.content.empty()) chunks.push_back(chat_chunk({{"content", delta.content}}, tokens));
  for (const chat::CallDelta& call : delta.calls) {
    if (call.name.empty() && call.arguments.empty()) continue;
    Json entry = {{"index", call.index}};
    if (call.name.empty()) {
      entry["function"] = {{"arguments", call.arguments}};
    } else {
      entry.update(call_json(info_, sample_, static_cast<size_t>(call.index), call.name, call.arguments));
    }
    chunks.push_back(chat_chunk({{"tool_calls", Json::array({std::move(entry)})}}, tokens));
  }
}

Json ChunkWriter::text_chunk(const std::string& text, Tokens tokens) {
  return chunk(
      {{"index", sample_}, {"text", text}, {"logprobs", logprobs(tokens)}, {"finish_reason", nullptr}});
}

std::vector<Json> ChunkWriter::add(const chat::OutputDelta& delta, Tokens tokens) {
  std::vector<Json> chunks;
  if (!is_begun_) {
    is_begun_ = true;
    if (request_.is_chat) {
      chunks.push_back(chat_chunk({{"role", "assistant"}, {"content", ""}}, {}));
    } else if (request_.echo) {
      chunks.push_back(text_chunk(model_.tokenizer->decode(request_.request.prompt), {}));
    }
  }
  if (request_.is_chat) {
    add_chat(delta, tokens, chunks);
  } else if (!delta.content.empty()) {
    chunks.push_back(text_chunk(delta.content, tokens));
  }
  return chunks;
}

std::vector<Json> ChunkWriter::finish(const chat::OutputDelta& delta, const TextSample& sample) {
  std::vector<Json> chunks = add(delta, sample.tokens);
  Json last = {{"index", sample_}};
  if (request_.is_chat) {
    last["delta"] = Json::object();
  } else {
    last["text"] = "";
  }
  last["logprobs"] = num_tokens_ < sample.tokens.size() ? logprobs(sample.tokens) : Json(nullptr);
  last["finish_reason"] = sample.finish_reason();
  chunks.push_back(chunk(std::move(last)));
  return chunks;
}

Json usage_chunk(const CompletionRequest& request, const ServedModel& model,
                 std::span<const TextSample> samples, const ResponseInfo& info) {
  return {{"id", info.id},
          {"object", request.is_chat ? "chat.completion.chunk" : "text_completion"},
          {"created", info.created},
          {"model", model_name(request, model)},
          {"choices", Json::array()},
          {"usage", usage(request, samples, info)}};
}

}  // namespace minimax::openai
