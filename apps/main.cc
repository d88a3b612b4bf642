// minimax: the command line.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/serve_options.h"
#include "core/error.h"

namespace {

// What the user gave cannot be used.
constexpr int kExitBadInput = 2;
// A bug of ours.
constexpr int kExitInternal = 70;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"minimax: runs MiniMax models from Hugging Face checkpoints as they are"};
  app.name("minimax");
  app.set_version_flag("--version", MINIMAX_VERSION);
  app.require_subcommand(1);
  app.set_config("--config", "", "Options from a TOML or INI file, a section for each command")
      ->check(CLI::ExistingFile);
  app.get_formatter()->column_width(36);
  minimax::apps::add_run_command(app);
  minimax::apps::add_chat_command(app);
  minimax::apps::add_serve_command(app);
  minimax::apps::add_batch_command(app);
  minimax::apps::add_logits_command(app);
  minimax::apps::add_tokenize_command(app);
  minimax::apps::add_render_command(app);
  minimax::apps::add_parse_command(app);
  minimax::apps::add_eval_command(app);
  minimax::apps::add_inspect_command(app);
  minimax::apps::add_bench_command(app);
  try {
    std::vector<std::string> arguments(argv + 1, argv + argc);
    minimax::apps::spell_out_short_names(arguments);
    std::reverse(arguments.begin(), arguments.end());  // as the parser takes them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadInput;
  } catch (const minimax::Error& error) {
    std::cerr << "minimax: error: " << error.what() << "\n";
    return kExitBadInput;
  } catch (const std::exception& error) {
    std::cerr << "minimax: internal error: " << error.what() << "\n";
    return kExitInternal;
  }
  return 0;
}
