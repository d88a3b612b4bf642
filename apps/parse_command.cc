// minimax parse: generated text to reasoning, content and tool calls.
#include <iostream>
#include <optional>

#include "apps/commands.h"
#include "apps/input_file.h"
#include "chat/chat_format.h"
#include "chat/output_parser.h"
#include "chat/tools.h"

namespace minimax::apps {
namespace {

using Json = nlohmann::ordered_json;

struct ParseOptions {
  std::string family;
  std::string tools_file;
  std::optional<std::string> prompt_tail;
};

// What the family's own template ends a prompt with.
std::string_view usual_prompt_tail(chat::ChatFormat format) {
  return format == chat::ChatFormat::kM2 ? "]~b]ai\n<think>\n" : "";
}

// Adds a delta of one answer; a call that was cut is left out by the caller.
void add(const chat::OutputDelta& delta, Json& answer, std::vector<chat::CallDelta>& calls) {
  answer["reasoning"].get_ref<std::string&>() += delta.reasoning;
  answer["content"].get_ref<std::string&>() += delta.content;
  for (const chat::CallDelta& call : delta.calls) {
    if (static_cast<size_t>(call.index) == calls.size()) calls.push_back({call.index, call.name, "", false});
    chat::CallDelta& whole = calls.back();
    whole.arguments += call.arguments;
    whole.is_last = call.is_last;
  }
}

void run_parse(const ParseOptions& options) {
  const chat::ChatFormat format = chat::parse_chat_format(options.family);
  const Json tools = read_json_list(options.tools_file, "--tools", "tools");
  const std::string text = read_text_file("-", "standard input");
  const auto parser =
      chat::make_output_parser(format, chat::tools_from_json(tools),
                               options.prompt_tail.value_or(std::string(usual_prompt_tail(format))));
  Json answer = {{"reasoning", ""}, {"content", ""}, {"tool_calls", Json::array()}};
  std::vector<chat::CallDelta> calls;
  add(parser->push(text), answer, calls);
  add(parser->finish(), answer, calls);
  for (const chat::CallDelta& call : calls) {
    if (call.is_last) {
      answer["tool_calls"].push_back({{"name", call.name}, {"arguments", Json::parse(call.arguments)}});
    }
  }
  std::cout << answer.dump() << std::endl;
}

}  // namespace

void add_parse_command(CLI::App& app) {
  auto options = std::make_shared<ParseOptions>();
  CLI::App* command = app.add_subcommand(
      "parse",
      "Read generated text from standard input; print its reasoning, content and tool calls as JSON");
  command->add_option("--family", options->family, "How the text is written: m1, m2 or m3")->required();
  command->add_option("--tools", options->tools_file, "JSON file with the list of tools the model may call");
  command->add_option("--prompt-tail", options->prompt_tail,
                      "The end of the prompt, which decides whether the text begins inside the reasoning; "
                      "default: what the family's template writes");
  command->callback([options] { run_parse(*options); });
}

}  // namespace minimax::apps
