// Where a model's files are: a directory, or ORG/NAME on a hub, fetched into its cache.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "formats/progress.h"

namespace minimax::apps {

// Adds -m,--model and --revision; a model that `is_positional` may also come without an option's name.
// REQUIRES: both texts outlive the command.
void add_source_options(CLI::App& command, std::string& model, std::string& revision, bool is_positional);

// RETURNS: the model's directory. A name on a hub is fetched, with or without its weights; progress is shown
// on standard error, and told to `watcher`, which may be null. Environment: HF_HUB_CACHE, HF_HOME, HF_TOKEN,
// HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE. THROWS: Error.
std::string locate_model(const std::string& model, const std::string& revision, bool needs_weights,
                         formats::Progress* watcher);

// Both at once: when the command line is read, `model` is a directory; weights are fetched only if
// `needs_weights` then says so. REQUIRES: `model` outlives the command.
void add_model_option(CLI::App& command, std::string& model, std::function<bool()> needs_weights);

// What a model is called when nothing else says: its name on a hub, or its folder's.
std::string default_model_name(const std::string& source);

}  // namespace minimax::apps
