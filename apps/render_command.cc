// minimax render: the prompt that a chat template makes of a conversation.
#include <iostream>

#include "apps/commands.h"
#include "apps/input_file.h"
#include "core/error.h"
#include "tokenizer/chat_template.h"

namespace minimax::apps {
namespace {

using Json = nlohmann::ordered_json;

struct RenderOptions {
  std::string model;
  std::string messages_file;
  std::string tools_file;
  std::string variables;
};

Json parse_variables(const std::string& text) {
  if (text.empty()) return nullptr;
  Json variables = Json::parse(text, nullptr, false);
  if (!variables.is_object()) fail("--chat-template-kwargs {}: expected a JSON object", text);
  return variables;
}

void run_render(const RenderOptions& options) {
  const auto chat_template = tokenizer::ChatTemplate::load(options.model);
  const Json messages = read_json_list(options.messages_file, "--messages", "messages");
  const Json tools = read_json_list(options.tools_file, "--tools", "tools");
  for (const Json& message : messages) {
    if (!message.is_object()) {
      fail("--messages {}: {} is no message; expected an object with a role and content",
           options.messages_file, message.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
  }
  const tokenizer::ChatPrompt prompt =
      chat_template.render(messages, tools, true, parse_variables(options.variables));
  if (!prompt.notice.empty()) std::cerr << "minimax: " << prompt.notice << "\n";
  std::cout << prompt.text << std::flush;
}

}  // namespace

void add_render_command(CLI::App& app) {
  auto options = std::make_shared<RenderOptions>();
  CLI::App* command = app.add_subcommand("render", "Print the prompt of a conversation, byte for byte");
  command->add_option("-m,--model", options->model, "Directory with the chat template")->required();
  command
      ->add_option("--messages", options->messages_file,
                   "JSON file with the list of messages (- for standard input)")
      ->required();
  command->add_option("--tools", options->tools_file, "JSON file with the list of tools the model may call");
  command->add_option("--chat-template-kwargs", options->variables,
                      "JSON object of further variables of the template");
  command->callback([options] { run_render(*options); });
}

}  // namespace minimax::apps
