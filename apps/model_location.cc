#include "apps/model_location.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "formats/progress.h"
#include "hub/hub.h"

namespace minimax::apps {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path hub_home() {
  if (const std::string home = environment("HF_HOME"); !home.empty()) return home;
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty())
    return fs::path(cache) / "huggingface";
  const std::string home = environment("HOME");
  if (home.empty()) fail("neither HF_HOME nor HOME is set; set HF_HOME to where models are kept");
  return fs::path(home) / ".cache" / "huggingface";
}

std::string hub_token() {
  if (std::string token = environment("HF_TOKEN"); !token.empty()) return token;
  const std::string path = environment("HF_TOKEN_PATH");
  std::string token;
  std::ifstream(path.empty() ? hub_home() / "token" : fs::path(path)) >> token;
  return token;
}

bool is_set(const char* name) {
  const std::string value = environment(name);
  return !value.empty() && value != "0" && value != "false" && value != "FALSE";
}

hub::HubOptions hub_options(const std::string& revision, bool needs_weights) {
  hub::HubOptions options;
  const std::string cache = environment("HF_HUB_CACHE");
  options.cache = cache.empty() ? hub_home() / "hub" : fs::path(cache);
  if (std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) {
    while (endpoint.ends_with('/')) endpoint.pop_back();
    options.endpoint = endpoint;
  }
  options.revision = revision;
  options.is_offline = is_set("HF_HUB_OFFLINE");
  options.with_weights = needs_weights;
  options.transfer.token = hub_token();
  return options;
}

std::string fetch(const std::string& name, const hub::HubOptions& options, formats::Progress& watcher) {
  formats::TextProgress bar(std::cerr, isatty(STDERR_FILENO) != 0);
  int64_t shown = 0;
  hub::DownloadProgress progress;
  const std::string what = "fetching " + name;
  watcher.start(what, 0);
  progress.start = [&](int64_t bytes) {
    shown = 0;
    bar.start(what, bytes);
    watcher.start(what, bytes);
  };
  progress.advance = [&](int64_t bytes) {
    bar.advance(bytes - shown);
    watcher.advance(bytes - shown);
    shown = bytes;
  };
  progress.note = [](const std::string& line) { std::cerr << "minimax: " << line << "\n"; };
  const fs::path folder = hub::fetch_model(name, options, progress);
  if (shown > 0) bar.finish();
  return folder.string();
}

}  // namespace

void add_source_options(CLI::App& command, std::string& model, std::string& revision, bool is_positional) {
  command
      .add_option(is_positional ? "-m,--model,model" : "-m,--model", model,
                  "Hugging Face model directory, or ORG/NAME to fetch")
      ->required();
  command.add_option("--revision", revision, "Branch, tag or commit of a fetched model")
      ->capture_default_str();
}

std::string locate_model(const std::string& model, const std::string& revision, bool needs_weights,
                         formats::Progress* watcher) {
  if (fs::exists(model) || !hub::is_model_name(model)) return model;
  formats::Progress silent;
  return fetch(model, hub_options(revision, needs_weights), watcher == nullptr ? silent : *watcher);
}

void add_model_option(CLI::App& command, std::string& model, std::function<bool()> needs_weights) {
  const auto revision = std::make_shared<std::string>("main");
  add_source_options(command, model, *revision, false);
  command.parse_complete_callback([&model, revision, needs_weights = std::move(needs_weights)] {
    model = locate_model(model, *revision, needs_weights(), nullptr);
  });
}

std::string default_model_name(const std::string& source) {
  if (!fs::exists(source) && hub::is_model_name(source)) return source;
  const fs::path folder = fs::weakly_canonical(source);
  return hub::model_name_of(folder).value_or(folder.filename().string());
}

}  // namespace minimax::apps
