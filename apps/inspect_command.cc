// minimax inspect: what a checkpoint is and what it needs, from its configuration and tensor headers alone.
#include <iostream>

#include "apps/commands.h"
#include "apps/model_location.h"
#include "apps/model_setup.h"
#include "core/host_memory.h"
#include "formats/checkpoint.h"

namespace minimax::apps {
namespace {

struct InspectOptions {
  std::string model;
  bool json = false;
  int64_t tensor_parallel = 1;
  int64_t expert_parallel = 1;
};

// The weights' headers where there are weights, else nothing: a configuration alone can be inspected too.
std::unique_ptr<formats::Checkpoint> open_weights(const std::filesystem::path& directory) {
  const bool single = std::filesystem::exists(directory / formats::kWeightsFile);
  const bool sharded = std::filesystem::exists(directory / formats::kIndexFile);
  if (!single && !sharded) return nullptr;
  if (sharded && !single) {
    // An index without a single shard beside it is a download that has not begun.
    bool any = false;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      any = any || entry.path().extension() == ".safetensors";
    }
    if (!any) return nullptr;
  }
  return std::make_unique<formats::Checkpoint>(formats::Checkpoint::open(directory));
}

int64_t layer_count(const models::ModelSummary& summary, std::string_view kind) {
  for (const models::LayerCount& layer : summary.layers) {
    if (layer.kind == kind) return layer.count;
  }
  return 0;
}

nlohmann::ordered_json to_json(const models::ModelSummary& s, bool has_weights) {
  nlohmann::ordered_json components = nlohmann::ordered_json::object();
  for (int c = 0; c < models::kNumComponents; ++c) {
    const auto& size = s.components[static_cast<size_t>(c)];
    if (size.parameters == 0) continue;
    components[std::string(models::name(static_cast<models::Component>(c)))] = {
        {"parameters", size.parameters}, {"bytes", size.bytes}};
  }
  const int64_t available = available_memory_bytes();
  const int64_t state_bytes = s.caches.state_bytes(1);
  const int64_t bytes_per_token = s.caches.kv_bytes_per_token() + s.caches.index_bytes_per_token();
  const int64_t room = available - s.weight_bytes - state_bytes;
  nlohmann::ordered_json result = {{"family", s.family},
                                   {"architecture", s.architecture},
                                   {"weights_present", has_weights},
                                   {"num_layers", s.num_layers},
                                   {"num_lightning_layers", layer_count(s, "lightning attention")},
                                   {"num_full_attention_layers", layer_count(s, "full attention")},
                                   {"num_sparse_attention_layers", layer_count(s, "sparse attention")},
                                   {"max_position_embeddings", s.max_position_embeddings},
                                   {"total_parameters", s.total_parameters},
                                   {"active_parameters", s.active_parameters},
                                   {"active_parameters_with_head", s.active_parameters_with_head},
                                   {"weight_bytes", s.weight_bytes},
                                   {"components", components},
                                   {"page_size", s.caches.page_size},
                                   {"kv_bytes_per_token", s.caches.kv_bytes_per_token()},
                                   {"index_bytes_per_token", s.caches.index_bytes_per_token()},
                                   {"linear_state_bytes_per_sequence", state_bytes},
                                   {"available_memory_bytes", available},
                                   {"fits", room >= 0}};
  if (room >= 0 && bytes_per_token > 0) {
    result["context_tokens_that_fit"] = std::min(s.max_position_embeddings, room / bytes_per_token);
  }
  return result;
}

nlohmann::ordered_json to_json(const models::RankSizes& sizes) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (const models::RankSizes::Rank& rank : sizes.ranks) {
    ranks.push_back({{"weight_bytes", rank.weight_bytes},
                     {"kv_bytes_per_token", rank.caches.kv_bytes_per_token()},
                     {"index_bytes_per_token", rank.caches.index_bytes_per_token()},
                     {"linear_state_bytes_per_sequence", rank.caches.state_bytes(1)}});
  }
  nlohmann::ordered_json repeated = nlohmann::ordered_json::object();
  for (const auto& [name, bytes] : sizes.repeated) repeated[name] = bytes;
  return {{"stored_bytes", sizes.stored_bytes}, {"repeated_bytes", repeated}, {"ranks", ranks}};
}

void print_ranks(const models::RankSizes& sizes) {
  fmt::print("{:<18}{:>20} {:>16} {:>16} {:>16}\n", "rank", "weights, bytes", "KV per token",
             "index per token", "linear states");
  int64_t total = 0;
  for (size_t r = 0; r < sizes.ranks.size(); ++r) {
    const models::RankSizes::Rank& rank = sizes.ranks[r];
    total += rank.weight_bytes;
    fmt::print("  {:<16}{:>20} {:>16} {:>16} {:>16}\n", r, rank.weight_bytes,
               rank.caches.kv_bytes_per_token(), rank.caches.index_bytes_per_token(),
               rank.caches.state_bytes(1));
  }
  fmt::print("  {:<16}{:>20}\n  {:<16}{:>20}\n  more than once\n", "all ranks", total, "stored",
             sizes.stored_bytes);
  for (const auto& [name, bytes] : sizes.repeated) fmt::print("{:>38} {}\n", bytes, name);
}

void print_text(const models::ModelSummary& s, const nlohmann::ordered_json& j) {
  fmt::print("{} ({}){}\n", s.family, s.architecture, j["weights_present"] ? "" : ", configuration only");
  std::string kinds;
  for (const models::LayerCount& layer : s.layers) {
    if (layer.count > 0) kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", layer.count, layer.kind);
  }
  fmt::print("layers            {}: {}\n", s.num_layers, kinds);
  fmt::print("parameters        {} ({:.1f}B), {} ({:.1f}B) active per token without embedding and head\n",
             s.total_parameters, static_cast<double>(s.total_parameters) / 1e9, s.active_parameters,
             static_cast<double>(s.active_parameters) / 1e9);
  fmt::print("weights           {} bytes\n", s.weight_bytes);
  for (const auto& [component, size] : j["components"].items()) {
    fmt::print("  {:<20}{:>18} parameters {:>18} bytes\n", component, size["parameters"].get<int64_t>(),
               size["bytes"].get<int64_t>());
  }
  fmt::print("KV cache          {} bytes per token in {}, pages of {} tokens\n",
             s.caches.kv_bytes_per_token(), name(s.caches.kv_dtype), s.caches.page_size);
  if (s.caches.num_index_layers > 0) {
    fmt::print("index cache       {} bytes per token in {}\n", s.caches.index_bytes_per_token(),
               name(s.caches.index_dtype));
  }
  if (s.caches.num_state_layers > 0) {
    fmt::print("linear states     {} bytes per sequence\n", s.caches.state_bytes(1));
  }
  fmt::print("longest context   {} tokens\n", s.max_position_embeddings);
  fmt::print(
      "memory at hand    {} bytes: {}\n", j["available_memory_bytes"].get<int64_t>(),
      j.contains("context_tokens_that_fit")
          ? fmt::format("one sequence of up to {} tokens fits", j["context_tokens_that_fit"].get<int64_t>())
          : (j["fits"].get<bool>() ? "it fits" : "the weights do not fit"));
}

void run_inspect(const InspectOptions& options) {
  const nlohmann::json config = formats::read_config(options.model);
  const auto weights = open_weights(options.model);
  if (weights != nullptr) models::check_weights(config, *weights);
  const models::ModelSummary summary = models::summarize_model(config, weights.get());
  nlohmann::ordered_json object = to_json(summary, weights != nullptr);
  models::ComputeOptions compute;
  compute.parallel.grid = {0, options.tensor_parallel, options.expert_parallel};
  models::RankSizes sizes;
  const bool has_ranks = compute.parallel.grid.size() > 1;
  if (has_ranks) {
    sizes = models::rank_sizes(config, weights.get(), compute);
    object["parallel"] = to_json(sizes);
  }
  if (options.json) {
    std::cout << object.dump() << "\n";
  } else {
    print_text(summary, object);
    if (has_ranks) print_ranks(sizes);
  }
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand("inspect", "Say what a checkpoint is and what it needs");
  add_model_option(*command, options->model, [] { return true; });
  command->add_flag("--json", options->json, "Print one JSON object");
  command
      ->add_option("--tensor-parallel", options->tensor_parallel,
                   "Show the ranks over which heads, vocabulary and widths are cut")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--expert-parallel", options->expert_parallel,
                   "Ranges of experts, each on as many ranks as --tensor-parallel says")
      ->check(CLI::Range(1, 1024));
  command->callback([options] { run_inspect(*options); });
}

}  // namespace minimax::apps
