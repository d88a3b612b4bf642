// Samples to bodies of OpenAI's answers: whole ones, and the chunks of streams.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "openai/answer.h"
#include "openai/request.h"

namespace minimax::openai {

struct ResponseInfo {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  bool reports_cached_tokens = true;
};

// As chat.completion or text_completion, by the request's kind.
nlohmann::ordered_json completion_body(const CompletionRequest& request, const ServedModel& model,
                                       const std::vector<TextSample>& samples, const ResponseInfo& info);

// The chunks of one sample's stream, in order.
class ChunkWriter {
 public:
  // REQUIRES: all outlive this.
  ChunkWriter(const CompletionRequest& request, const ServedModel& model, const ResponseInfo& info,
              int32_t sample)
      : request_(request), model_(model), info_(info), sample_(sample) {}

  // What a token added, none when it added nothing to see. `sample` is as it stands; logprobs come with the
  // next chunk that has text.
  std::vector<nlohmann::ordered_json> add(const chat::OutputDelta& delta, const TextSample& sample);
  // The last ones, after the delta of finish.
  std::vector<nlohmann::ordered_json> finish(const chat::OutputDelta& delta, const TextSample& sample);

 private:
  using Json = nlohmann::ordered_json;

  Json chunk(Json choice) const;
  Json chat_chunk(Json delta, std::span<const engine::SampledToken> tokens);
  void add_chat(const chat::OutputDelta& delta, std::span<const engine::SampledToken> tokens,
                std::vector<Json>& chunks);
  Json text_chunk(const std::string& text, std::span<const engine::SampledToken> tokens);
  Json logprobs(std::span<const engine::SampledToken> tokens);
  Json echo(const TextSample& sample);

  const CompletionRequest& request_;
  const ServedModel& model_;
  const ResponseInfo& info_;
  int32_t sample_;
  bool is_begun_ = false;
  size_t num_tokens_ = 0;  // whose logprobs are sent
  int64_t offset_ = 0;     // of the text that has them, in characters
};

// The last chunk of a stream, where the request asks for it.
nlohmann::ordered_json usage_chunk(const CompletionRequest& request, const ServedModel& model,
                                   std::span<const TextSample> samples, const ResponseInfo& info);

}  // namespace minimax::openai
