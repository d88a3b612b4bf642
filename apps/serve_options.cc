#include "apps/serve_options.h"

#include <iostream>

#include "apps/model_location.h"

namespace minimax::apps {
namespace {

// Flags of vLLM that change nothing here: what they turn on is always on, or there is nothing to turn.
constexpr const char* kIgnoredFlags[] = {"--trust-remote-code",
                                         "--enable-auto-tool-choice",
                                         "--disable-log-requests",
                                         "--enable-log-requests",
                                         "--disable-log-stats",
                                         "--enforce-eager",
                                         "--enable-chunked-prefill",
                                         "--no-enable-chunked-prefill",
                                         "--language-model-only",
                                         "--enable-expert-parallel",
                                         "--enable-prompt-tokens-details",
                                         "--no-enable-log-requests",
                                         "--async-scheduling",
                                         "--no-async-scheduling",
                                         "--disable-uvicorn-access-log",
                                         "--disable-fastapi-docs",
                                         "--disable-custom-all-reduce",
                                         "--enable-server-load-tracking"};
constexpr const char* kIgnoredOptions[] = {"--block-size",
                                           "--tool-call-parser",
                                           "--reasoning-parser",
                                           "--gpu-memory-utilization",
                                           "--swap-space",
                                           "--tokenizer-mode",
                                           "--uvicorn-log-level",
                                           "--quantization",
                                           "--speculative-config",
                                           "--compilation-config",
                                           "--max-seq-len-to-capture",
                                           "--distributed-executor-backend",
                                           "--chat-template-content-format",
                                           "--limit-mm-per-prompt",
                                           "--api-server-count",
                                           "--max-log-len",
                                           "--n-gpu-layers"};
// Of vLLM's, where one rank is all there is.
constexpr const char* kParallelOptions[] = {"--tensor-parallel-size", "--pipeline-parallel-size",
                                            "--data-parallel-size"};
// Short names of more than one letter, which the parser does not know.
constexpr std::pair<std::string_view, const char*> kShortNames[] = {{"-np", "--parallel"},
                                                                    {"-hf", "--model"},
                                                                    {"-ngl", "--n-gpu-layers"},
                                                                    {"-tp", "--tensor-parallel-size"},
                                                                    {"-pp", "--pipeline-parallel-size"},
                                                                    {"-dp", "--data-parallel-size"},
                                                                    {"-q", "--quantization"}};

void say_ignored(const std::string& name) {
  std::cerr << "minimax: " << name << " is accepted and does nothing: the model says what is needed\n";
}

void add_ignored(CLI::App& command) {
  for (const std::string name : kIgnoredFlags) {
    command.add_flag_callback(name, [name] { say_ignored(name); })->group("");
  }
  for (const std::string name : kIgnoredOptions) {
    command.add_option_function<std::string>(name, [name](const std::string&) { say_ignored(name); })
        ->group("");
  }
  for (const std::string name : kParallelOptions) {
    const auto take = [name](int64_t size) {
      if (size != 1) fail("{} is {}; this version serves on one rank: give 1 or leave it out", name, size);
    };
    command.add_option_function<int64_t>(name, take)->group("");
  }
}

// Options that have been added since the last call.
void name_group(CLI::App& command, const std::string& group) {
  for (CLI::Option* option : command.get_options()) {
    if (option->get_group() == "Options" && option->get_name() != "--help") option->group(group);
  }
}

// "--max-model-len" is MINIMAX_SERVE_MAX_MODEL_LEN.
void name_environment(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    const std::string name = option->get_name();
    if (!name.starts_with("--") || name == "--help" || !option->get_envname().empty()) continue;
    std::string variable = "MINIMAX_SERVE_";
    for (const char c : name.substr(2)) {
      variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    option->envname(variable);
  }
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

}  // namespace

void ServeFlags::add_address_options(CLI::App& command) {
  command.add_option("--host", http.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", http.port, "Port to listen on (0: one that is free)")->capture_default_str();
  command
      .add_option("--api-key", api_keys, "A key that clients must send (repeatable); none: anyone may ask")
      ->envname("MINIMAX_API_KEY");
  command.add_option("--ssl-certfile", http.tls_certificate, "Serve HTTPS with this certificate chain (PEM)")
      ->check(CLI::ExistingFile);
  command.add_option("--ssl-keyfile", http.tls_key, "Its key (PEM); default: in the certificate's file")
      ->check(CLI::ExistingFile);
  command.add_option("--allowed-origins", http.allowed_origins, "Origins of web pages that may ask, or *")
      ->delimiter(',');
}

void ServeFlags::add_limit_options(CLI::App& command) {
  command.add_option("--max-queue", max_queue, "Answers that may wait besides those that run; more get 429")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--max-stored-responses", max_stored_responses,
                  "Answers of /v1/responses kept for requests that go on from them (64 MiB at most)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--max-connections", http.max_connections, "Connections at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--max-body-bytes", http.max_body_bytes, "Longest body of a request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--max-header-bytes", http.max_header_bytes, "Longest header of a request")
      ->check(CLI::Range(1024, 1 << 20))
      ->capture_default_str();
  const CLI::Range seconds(0.05, 86400.0);
  command.add_option("--header-timeout", header_timeout, "Seconds in which a header must be here")
      ->check(seconds)
      ->capture_default_str();
  command.add_option("--body-timeout", body_timeout, "Seconds in which a body must be here")
      ->check(seconds)
      ->capture_default_str();
  command.add_option("--idle-timeout", idle_timeout, "Seconds between requests of a connection")
      ->check(seconds)
      ->capture_default_str();
  command
      .add_option("--write-timeout", write_timeout, "Seconds in which a client must take some of its answer")
      ->check(seconds)
      ->capture_default_str();
  command.add_option("--drain-timeout", drain_seconds, "Seconds that answers have to end after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
}

void ServeFlags::add_to(CLI::App& command) {
  model.add_options(command, true);  // its port opens before the model is located
  command
      .add_option("--chat-template", chat_template, "A file to use instead of the checkpoint's chat template")
      ->check(CLI::ExistingFile);
  command.add_option("--served-model-name,--alias", names,
                     "Names of the model; default: its name on the hub, or its folder's");
  name_group(command, "Model and computing");
  command.add_option("-c,--ctx-size", model.max_model_len, "The same as --max-model-len")->group("");
  engine.add_to(command);
  command.add_option("--parallel", engine.max_num_seqs, "The same as --max-num-seqs")
      ->check(CLI::PositiveNumber)
      ->group("");
  command.add_option("--seed", seed,
                     "Seed of the seeds of requests that bring none; default: from the clock");
  name_group(command, "Engine");
  add_address_options(command);
  name_group(command, "Address and access");
  add_limit_options(command);
  name_group(command, "Limits");
  add_ignored(command);
  name_environment(command);
}

void spell_out_short_names(std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() != "serve") return;
  for (std::string& argument : arguments) {
    for (const auto& [name, whole] : kShortNames) {
      if (argument == name) argument = whole;
    }
  }
}

void ServeFlags::finish() {
  http.header_timeout = milliseconds(header_timeout);
  http.body_timeout = milliseconds(body_timeout);
  http.idle_timeout = milliseconds(idle_timeout);
  http.write_timeout = milliseconds(write_timeout);
  if (names.empty()) names.push_back(default_model_name(model.model));
  if (!seed) seed = static_cast<int64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  if (http.tls_certificate.empty() && !http.tls_key.empty())
    fail("--ssl-keyfile is given without --ssl-certfile; give the certificate too");
  for (const std::string& key : api_keys) {
    if (key.empty()) fail("--api-key is empty; give a key, or leave the option out");
  }
}

}  // namespace minimax::apps
