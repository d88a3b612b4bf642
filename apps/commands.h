// The commands of the executable. Each adds a subcommand with its options to `app`; the command itself runs
// as the subcommand's callback and throws on failure.
#pragma once

#include <CLI/CLI.hpp>

namespace minimax::apps {

void add_batch_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_parse_command(CLI::App& app);
void add_render_command(CLI::App& app);
void add_run_command(CLI::App& app);
void add_serve_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);

}  // namespace minimax::apps
