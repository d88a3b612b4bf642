// Options of minimax serve: vLLM's names, llama.cpp's where they mean the same.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/engine_options.h"
#include "http/server.h"

namespace minimax::apps {

struct ServeFlags {
  ModelOptions model;
  EngineFlags engine;
  http::ServerOptions http;
  std::vector<std::string> api_keys;
  std::vector<std::string> names;  // of the model
  std::string chat_template;       // file
  std::optional<int64_t> seed;
  int64_t max_queue = 1024;
  int64_t max_stored_responses = 1000;
  double drain_seconds = 30;
  // In seconds; they become fields of `http`.
  double header_timeout = 10, body_timeout = 120, idle_timeout = 75, write_timeout = 30;

  ServeFlags() { engine.log_format = "text"; }

  // Each option also comes from MINIMAX_SERVE_OPTION_NAME, and from the [serve] section of --config's file.
  void add_to(CLI::App& command);
  // What the options come to, when they have been parsed.
  void finish();

 private:
  void add_address_options(CLI::App& command);
  void add_limit_options(CLI::App& command);
};

// Writes out short names of more than one letter on a command line of serve, such as vLLM's -tp and
// llama.cpp's -np, which the parser would take apart.
void spell_out_short_names(std::vector<std::string>& arguments);

}  // namespace minimax::apps
