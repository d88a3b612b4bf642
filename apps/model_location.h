// Where a model's files are: a directory, or ORG/NAME on a hub, fetched into its cache.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace minimax::apps {

// Adds -m,--model and --revision. Once the command line is read, `model` is a directory: a name on a hub is
// fetched, its weights only if `needs_weights` then says so. Environment: HF_HUB_CACHE, HF_HOME, HF_TOKEN,
// HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE. REQUIRES: `model` outlives the command.
void add_model_option(CLI::App& command, std::string& model, std::function<bool()> needs_weights);

}  // namespace minimax::apps
