// What every command that computes shares: its options, and a model on a backend made from them.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "apps/device.h"
#include "core/thread_pool.h"
#include "engine/session.h"
#include "formats/progress.h"
#include "formats/weight_source.h"
#include "models/model.h"

namespace minimax::apps {

struct ModelOptions {
  std::string model;                             // directory, or ORG/NAME until it is located
  std::string revision = "main";                 // of a name on a hub
  std::string dtype = "auto";                    // auto, bfloat16, float32
  std::string kv_cache_dtype = "auto";           // auto (that of the activations), fp8
  std::string index_cache_dtype = "auto";        // likewise, of the index keys of sparse attention
  std::string activation_quantization = "auto";  // auto (fp8 on GPUs), none, fp8
  std::string load_format = "auto";              // auto, dummy
  int64_t num_layers = 0;                        // with dummy weights: run only the first layers; 0: all
  int threads = 0;                               // 0: all processors
  std::string device = "auto";                   // auto, cpu, cuda, cuda:N
  int cuda_architecture = 0;                     // of kernels: 80, 90 or 0 for the device's best
  std::string max_model_len = "auto";
  bool dry_run = false;
  parallel::Parallel parallel{};         // one rank unless a command says otherwise
  formats::Progress* watcher = nullptr;  // is told of the load besides the terminal; may be null

  // When the command line is read, `model` is a directory.
  void add_to(CLI::App& command);
  // Without that, for commands that locate it later.
  void add_options(CLI::App& command, bool is_positional);
  // Fetches a model that is a name on a hub, its weights too where they are read. THROWS: Error.
  void locate();
};

// "auto" gives nothing; "4096", "128k", "1M" give tokens. THROWS: Error.
std::optional<int64_t> parse_token_count(const std::string& text, const std::string& option);

// The activation dtype that --dtype and config.json ask for. THROWS: Error.
DType activation_dtype(const std::string& option, const nlohmann::json& config);

// How the options and config.json ask to compute. THROWS: Error.
models::ComputeOptions compute_options(const ModelOptions& options, const nlohmann::json& config);

// Everything that must live as long as a model computes.
struct ModelRuntime {
  std::string source;  // the model directory
  nlohmann::json config;
  models::ComputeOptions compute;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<ComputeDevice> device;
  ops::Backend* backend = nullptr;                 // of `device`
  std::unique_ptr<formats::WeightSource> weights;  // null for a plan
  std::unique_ptr<models::Model> model;
  models::ModelSummary summary;
  bool planned = false;

  // The context a session gets: --max-model-len, else `wanted`, within what the model takes.
  int64_t context_length(const ModelOptions& options, int64_t wanted) const;
  // A session as long as the model and --max-model-len allow. Its caches grow with use.
  engine::SessionOptions longest_session(const ModelOptions& options) const;
};

// config.json alone, its layers cut to options.num_layers when that is set.
nlohmann::json read_model_config(const ModelOptions& options);

// Loads the model (or with --dry-run only its shapes), with progress on stderr. THROWS: Error.
ModelRuntime set_up_model(const ModelOptions& options);

// The bytes of weights and of a plan, and whether they fit this machine, as text for people.
std::string describe_memory(const ModelRuntime& runtime, const engine::MemoryPlan& plan);

// The byte-exact plan of a session, likewise.
std::string describe_plan(const ModelRuntime& runtime, const engine::SessionOptions& session);

}  // namespace minimax::apps
