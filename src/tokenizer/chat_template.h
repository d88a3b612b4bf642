// A checkpoint's chat template: messages to prompt text.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/template.h"

namespace minimax::tokenizer {

struct ChatPrompt {
  std::string text;
  // Set when the messages had to be changed for the template to accept them; says what was changed.
  std::string notice;
};

class ChatTemplate {
 public:
  // Special tokens by their role as templates see them, e.g. {"bos_token", "]~!b["}.
  using SpecialTokens = std::vector<std::pair<std::string, std::string>>;

  // Reads chat_template.jinja, else the chat_template of tokenizer_config.json (a text, or a list of named
  // templates of which `name` is taken, else "default"). A directory of M1 files without either gets the
  // built-in M1 template. THROWS: Error when there is none.
  static ChatTemplate load(const std::filesystem::path& directory, std::string_view name = "default");

  // `source` with the special tokens that a checkpoint's tokenizer_config.json names. THROWS: as load.
  static ChatTemplate for_checkpoint(std::string_view source, const std::filesystem::path& directory);

  // THROWS: Error naming the line when `source` is no template.
  explicit ChatTemplate(std::string_view source, SpecialTokens tokens = {}, const jinja::Limits& limits = {});

  // Renders `messages` (a list of objects). `tools` is a list or null. `variables` is an object of further
  // template variables (thinking_mode, ...) or null. An assistant's empty or null "tool_calls" is dropped.
  // When the template cannot take contents that are strings, they are passed as lists of one text part
  // instead, and the notice says so. THROWS: jinja::RaisedError when the template refuses the messages; Error
  // for other failures.
  ChatPrompt render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                    bool add_generation_prompt, const nlohmann::ordered_json& variables,
                    const jinja::RenderOptions& options = {}) const;

  const std::string& source() const { return source_; }

 private:
  // Whether a user message's text comes out.
  bool prints_probe(const nlohmann::ordered_json& messages) const;

  std::string source_;
  SpecialTokens tokens_;
  jinja::Template template_;
  bool needs_parts_ = false;
};

// The template used for M1 when a checkpoint has none: roles as in MiniMax's own format, string contents and
// lists of parts, tools, tool calls and tool results.
std::string_view builtin_m1_template();

}  // namespace minimax::tokenizer
