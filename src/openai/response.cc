#include "openai/response.h"

#include <algorithm>
#include <numeric>

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

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80; });
}

// Logprobs of a text completion in the making: OpenAI's parallel lists.
struct TextLogprobs {
  Json tokens = Json::array(), values = Json::array(), top = Json::array(), offsets = Json::array();
  int64_t offset = 0;  // of the next token in the text, in characters

  void begin(const ServedModel& model, int32_t id) {
    const int32_t ids[] = {id};
    const std::string text = model.tokenizer->decode(ids);
    tokens.push_back(text);
    offsets.push_back(offset);
    offset += num_characters(text);
  }
  // The first token of a prompt has nothing in front.
  void add_first(const ServedModel& model, int32_t id) {
    begin(model, id);
    values.push_back(nullptr);
    top.push_back(nullptr);
  }
  void add(const ServedModel& model, const engine::SampledToken& token, size_t num_top) {
    begin(model, token.id);
    values.push_back(token.logprob);
    Json likeliest = Json::object();
    for (size_t i = 0; i < std::min(num_top, token.top.size()); ++i) {
      const int32_t ids[] = {token.top[i].first};
      likeliest[model.tokenizer->decode(ids)] = token.top[i].second;
    }
    // As OpenAI's, also one that is not among the likeliest.
    if (num_top > 0) likeliest.emplace(tokens.back().get<std::string>(), token.logprob);
    top.push_back(std::move(likeliest));
  }
  Json json() const {
    return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", top}, {"text_offset", offsets}};
  }
};

// `echoed`: the prompt, when it is part of the text. `offset` is moved behind the tokens.
Json text_logprobs(const ServedModel& model, const engine::Request& request, const TextSample* echoed,
                   Tokens tokens, int64_t& offset) {
  const auto num_top = static_cast<size_t>(request.sampling.top_logprobs);
  TextLogprobs result;
  result.offset = offset;
  if (echoed != nullptr) {
    result.add_first(model, request.prompt.front());
    for (const engine::SampledToken& token : echoed->prompt) result.add(model, token, num_top);
  }
  for (const engine::SampledToken& token : tokens) result.add(model, token, num_top);
  offset = result.offset;
  return result.json();
}

// As vLLM's: for each token of the prompt what was likely there, and the token itself; null for the first.
Json prompt_logprobs(const ServedModel& model, const TextSample& sample, size_t num_top) {
  Json list = Json::array({nullptr});
  for (const engine::SampledToken& token : sample.prompt) {
    Json entry = Json::object();
    const auto add = [&](int32_t id, float logprob, Json rank) {
      const int32_t ids[] = {id};
      entry[std::to_string(id)] = {
          {"logprob", logprob}, {"rank", std::move(rank)}, {"decoded_token", model.tokenizer->decode(ids)}};
    };
    add(token.id, token.logprob, nullptr);  // its rank is known when it is among the likeliest
    for (size_t i = 0; i < std::min(num_top, token.top.size()); ++i)
      add(token.top[i].first, token.top[i].second, i + 1);
    list.push_back(std::move(entry));
  }
  return list;
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

size_t num_prompt_top(const CompletionRequest& request) {
  return static_cast<size_t>(request.request.prompt_logprobs.value_or(0));
}

Json choice(const CompletionRequest& request, const ServedModel& model, const TextSample& sample,
            const ResponseInfo& info) {
  Json result = {{"index", sample.finish.sample}};
  if (request.is_chat) {
    result["message"] = message(sample, info);
    result["logprobs"] = request.wants_logprobs ? chat_logprobs(model, sample.tokens) : Json(nullptr);
  } else {
    const engine::Request& own = request.request_of(sample.finish.sample);
    const std::string echoed = request.echo ? model.tokenizer->decode(own.prompt) : "";
    int64_t offset = 0;
    result["text"] = echoed + sample.text;
    result["logprobs"] = request.wants_logprobs ? text_logprobs(model, own, request.echo ? &sample : nullptr,
                                                                sample.tokens, offset)
                                                : Json(nullptr);
    if (request.wants_prompt_logprobs)
      result["prompt_logprobs"] = prompt_logprobs(model, sample, num_prompt_top(request));
  }
  result["finish_reason"] = sample.finish_reason();
  return result;
}

Json usage(const CompletionRequest& request, std::span<const TextSample> samples, const ResponseInfo& info) {
  int64_t generated = 0;
  int64_t reasoning = 0;
  int64_t prompt = std::ssize(request.request.prompt);
  for (const engine::Request& further : request.further) prompt += std::ssize(further.prompt);
  std::vector<int64_t> cached(request.further.size() + 1);  // by prompt
  bool is_parsed = false;
  for (const TextSample& sample : samples) {
    generated += sample.finish.num_tokens;
    reasoning += sample.reasoning_tokens;
    int64_t& of_prompt = cached[static_cast<size_t>(sample.finish.sample / request.request.n)];
    of_prompt = std::max(of_prompt, sample.finish.cached_tokens);
    is_parsed = is_parsed || sample.is_parsed;
  }
  Json result = {
      {"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
  if (info.reports_cached_tokens) {
    const int64_t all = std::accumulate(cached.begin(), cached.end(), int64_t{0});
    result["prompt_tokens_details"] = {{"cached_tokens", all}};
  }
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
  Json body = {{"id", info.id},           {"object", request.is_chat ? "chat.completion" : "text_completion"},
               {"created", info.created}, {"model", model_name(request, model)},
               {"choices", choices},      {"usage", usage(request, samples, info)}};
  if (request.is_chat && request.wants_prompt_logprobs)
    body["prompt_logprobs"] = prompt_logprobs(model, samples.front(), num_prompt_top(request));
  return body;
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
  num_tokens_ = std::max(num_tokens_, tokens.size());
  if (!request_.wants_logprobs) return nullptr;
  if (request_.is_chat) return chat_logprobs(model_, fresh);
  return text_logprobs(model_, request_.request_of(sample_), nullptr, fresh, offset_);
}

// The prompt with its logprobs.
Json ChunkWriter::echo(const TextSample& sample) {
  const engine::Request& own = request_.request_of(sample_);
  return chunk({{"index", sample_},
                {"text", model_.tokenizer->decode(own.prompt)},
                {"logprobs",
                 request_.wants_logprobs ? text_logprobs(model_, own, &sample, {}, offset_) : Json(nullptr)},
                {"finish_reason", nullptr}});
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

std::vector<Json> ChunkWriter::add(const chat::OutputDelta& delta, const TextSample& sample) {
  const Tokens tokens = sample.tokens;
  std::vector<Json> chunks;
  if (!is_begun_) {
    is_begun_ = true;
    if (request_.is_chat) {
      chunks.push_back(chat_chunk({{"role", "assistant"}, {"content", ""}}, {}));
    } else if (request_.echo) {
      chunks.push_back(echo(sample));
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
  std::vector<Json> chunks = add(delta, sample);
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
