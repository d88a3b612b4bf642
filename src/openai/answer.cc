#include "openai/answer.h"

#include <algorithm>

namespace minimax::openai {
namespace {

// Whether a token's text belongs to what parsers look for, in any family; such a token must reach them even
// where a checkpoint calls it special.
bool is_markup(std::string_view text) {
  const auto has = [text](std::string_view part) { return text.find(part) != std::string_view::npos; };
  return has("think>") || has("tool_call") || has("]minimax[") || has("invoke") || has("parameter");
}

}  // namespace

std::string_view TextSample::finish_reason() const {
  if (finish.reason == engine::FinishReason::kLength || is_call_cut) return "length";
  const bool has_call =
      std::any_of(calls.begin(), calls.end(), [](const ToolCall& call) { return call.is_whole; });
  return has_call ? "tool_calls" : "stop";
}

Answer::Answer(const CompletionRequest& request, const ServedModel& model)
    : request_(request),
      model_(model),
      parser_(request.is_chat && model.make_parser ? model.make_parser(request.tools, request.prompt_tail)
                                                   : nullptr),
      stream_(*model.tokenizer, request.stop, {.skip_special = !parser_ && request.skip_special_tokens}) {
  sample_.is_parsed = parser_ != nullptr;
}

bool Answer::is_hidden(int32_t id) const {
  return parser_ && request_.skip_special_tokens && model_.tokenizer->is_special(id) &&
         !is_markup(model_.tokenizer->id_to_bytes(id));
}

chat::OutputDelta Answer::push(const engine::SampledToken& token) {
  if (request_.is_prompt_only) return {};
  if (parser_ && parser_->is_reasoning()) ++sample_.reasoning_tokens;
  chat::OutputDelta delta = is_hidden(token.id) ? chat::OutputDelta() : take(stream_.push(token.id));
  if (!stream_.is_stopped() && request_.wants_logprobs) sample_.tokens.push_back(token);
  return delta;
}

chat::OutputDelta Answer::finish(const engine::FinishedSample& finish) {
  sample_.finish = finish;
  if (request_.is_prompt_only) {
    sample_.finish.num_tokens = 0;
    if (finish.reason == engine::FinishReason::kStop) sample_.finish.reason = engine::FinishReason::kLength;
  }
  chat::OutputDelta delta = take(stream_.finish());
  if (!parser_) return delta;
  if (!request_.is_stream) {
    parser_ = model_.make_parser(request_.tools, request_.prompt_tail);
    delta = parser_->push(whole_);
    add(delta);
  }
  chat::OutputDelta rest = parser_->finish();
  add(rest);
  delta.reasoning += rest.reasoning;
  delta.content += rest.content;
  std::move(rest.calls.begin(), rest.calls.end(), std::back_inserter(delta.calls));
  sample_.is_call_cut = parser_->is_call_cut();
  return delta;
}

chat::OutputDelta Answer::take(const std::string& text) {
  chat::OutputDelta delta;
  if (parser_) {
    delta = parser_->push(text);
  } else {
    delta.content = text;
  }
  if (parser_ && !request_.is_stream) {
    whole_ += text;
    return {};
  }
  add(delta);
  return delta;
}

void Answer::add(const chat::OutputDelta& delta) {
  sample_.text += delta.content;
  sample_.reasoning += delta.reasoning;
  for (const chat::CallDelta& piece : delta.calls) {
    const auto index = static_cast<size_t>(piece.index);
    if (index >= sample_.calls.size()) sample_.calls.resize(index + 1);
    ToolCall& call = sample_.calls[index];
    call.name += piece.name;
    call.arguments += piece.arguments;
    call.is_whole = call.is_whole || piece.is_last;
  }
}

}  // namespace minimax::openai
