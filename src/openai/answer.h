// One sample of an answer: tokens as they come to text, and text to reasoning, content and calls.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/text_stream.h"
#include "openai/request.h"

namespace minimax::openai {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON
  bool is_whole = false;
};

// A sample with its text, all of it when it has finished.
struct TextSample {
  std::string text;       // content, or the whole text where nothing parses it
  std::string reasoning;  // of chats whose answers are parsed, as the following
  std::vector<ToolCall> calls;
  int64_t reasoning_tokens = 0;
  bool is_parsed = false;
  bool is_call_cut = false;
  std::vector<engine::SampledToken> tokens;  // of the text, if logprobs are wanted
  std::vector<engine::SampledToken> prompt;  // tokens of the prompt from the second on, likewise
  engine::FinishedSample finish;

  // In OpenAI's words.
  std::string_view finish_reason() const;
};

class Answer {
 public:
  // REQUIRES: both outlive this.
  Answer(const CompletionRequest& request, const ServedModel& model);

  // RETURNS: what the token adds; without a parser all of it is content. An answer that is parsed and no
  // stream is read as a whole at its end, since a few texts mean more in full (M1 without its opening
  // marker): then push gives nothing and finish all.
  chat::OutputDelta push(const engine::SampledToken& token);
  chat::OutputDelta finish(const engine::FinishedSample& finish);
  // The logprobs of the prompt, which come before the first token.
  void set_prompt(const std::vector<engine::SampledToken>& logprobs) { sample_.prompt = logprobs; }
  // No more tokens are wanted: a stop string was found, or the prompt is all.
  bool is_stopped() const { return stream_.is_stopped() || request_.is_prompt_only; }
  const std::string& stop_string() const { return stream_.found(); }
  const TextSample& sample() const { return sample_; }

 private:
  bool is_hidden(int32_t id) const;
  chat::OutputDelta take(const std::string& text);
  void add(const chat::OutputDelta& delta);

  const CompletionRequest& request_;
  const ServedModel& model_;
  std::unique_ptr<chat::OutputParser> parser_;  // null: nothing is parsed
  std::string whole_;                           // of an answer that is parsed and no stream
  engine::TextStream stream_;
  TextSample sample_;
};

}  // namespace minimax::openai
