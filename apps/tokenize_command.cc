// minimax tokenize: text to token ids and back.
#include <iostream>
#include <iterator>

#include "apps/commands.h"
#include "apps/model_location.h"
#include "core/error.h"
#include "nlohmann/json.hpp"
#include "tokenizer/tokenizer.h"

namespace minimax::apps {
namespace {

struct TokenizeOptions {
  std::string model;
  std::string text;
  std::vector<int32_t> decode;
  bool no_special = false;
  bool json = false;
};

void print_tokens(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool json) {
  if (json) {
    std::cout << nlohmann::json(ids).dump() << "\n";
    return;
  }
  for (const int32_t id : ids)
    std::cout << id << "\t" << tokenizer.id_to_token(id).value_or("(no token)") << "\n";
}

void run_tokenize(const TokenizeOptions& options) {
  const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::load(options.model);
  if (!options.decode.empty()) {
    std::cout << tokenizer.decode(options.decode) << "\n";
    return;
  }
  const std::string text =
      options.text == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : options.text;
  print_tokens(tokenizer, tokenizer.encode(text, {!options.no_special}), options.json);
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "Show the tokens of a text, or the text of tokens");
  add_model_option(*command, options->model, [] { return false; });
  command->add_option("text", options->text, "The text (- for standard input)");
  command->add_option("--decode", options->decode, "Token ids to turn into text")->delimiter(',');
  command->add_flag("--no-special", options->no_special, "Read special tokens in the text as plain text");
  command->add_flag("--json", options->json, "Print the ids as one JSON list");
  command->callback([options] { run_tokenize(*options); });
}

}  // namespace minimax::apps
