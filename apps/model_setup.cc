#include "apps/model_setup.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iostream>

#include "apps/model_location.h"
#include "formats/checkpoint.h"

namespace minimax::apps {
namespace {

// A load below this is over before a progress bar could be read.
constexpr int64_t kSilentLoadBytes = int64_t{64} << 20U;

// Says what is left unloaded and nothing else.
class NotesOnly : public formats::Progress {
 public:
  void note(std::string_view line) override { std::cerr << "minimax: " << line << "\n"; }
};

// Tells two.
class SharedProgress : public formats::Progress {
 public:
  SharedProgress(std::unique_ptr<formats::Progress> shown, formats::Progress& watcher)
      : shown_(std::move(shown)), watcher_(watcher) {}
  void start(std::string_view what, int64_t total_bytes) override {
    shown_->start(what, total_bytes);
    watcher_.start(what, total_bytes);
  }
  void advance(int64_t bytes) override {
    shown_->advance(bytes);
    watcher_.advance(bytes);
  }
  void finish() override {
    shown_->finish();
    watcher_.finish();
  }
  void note(std::string_view line) override { shown_->note(line); }

 private:
  std::unique_ptr<formats::Progress> shown_;
  formats::Progress& watcher_;
};

// Rank 0 speaks for all.
std::unique_ptr<formats::Progress> shown_progress(const ModelOptions& options, int64_t weight_bytes) {
  if (options.parallel.grid.rank > 0) return std::make_unique<formats::Progress>();
  if (weight_bytes < kSilentLoadBytes) return std::make_unique<NotesOnly>();
  return std::make_unique<formats::TextProgress>(std::cerr, isatty(STDERR_FILENO) != 0);
}

std::unique_ptr<formats::Progress> make_progress(const ModelOptions& options, int64_t weight_bytes) {
  auto shown = shown_progress(options, weight_bytes);
  if (options.watcher == nullptr) return shown;
  return std::make_unique<SharedProgress>(std::move(shown), *options.watcher);
}

std::optional<DType> cache_dtype(const std::string& word) {
  if (word == "auto") return std::nullopt;
  if (word == "bfloat16") return DType::kBF16;
  return word == "float32" ? DType::kF32 : DType::kF8E4M3;
}

}  // namespace

void ModelOptions::locate() {
  model = locate_model(model, revision, !dry_run && load_format != "dummy", watcher);
}

void ModelOptions::add_to(CLI::App& command) {
  add_options(command, false);
  command.parse_complete_callback([this] { locate(); });
}

void ModelOptions::add_options(CLI::App& command, bool is_positional) {
  add_source_options(command, model, revision, is_positional);
  command.add_option("--dtype", dtype, "Compute in auto (what the checkpoint says), bfloat16 or float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}))
      ->capture_default_str();
  command
      .add_option("--kv-cache-dtype", kv_cache_dtype,
                  "Keys and values in auto (as computed), fp8 or fp8_e4m3: half the memory of bfloat16")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32", "fp8", "fp8_e4m3"}))
      ->capture_default_str();
  command
      .add_option("--index-cache-dtype", index_cache_dtype,
                  "Index keys of sparse attention, in the same words")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32", "fp8", "fp8_e4m3"}))
      ->capture_default_str();
  command
      .add_option("--activation-quantization", activation_quantization,
                  "fp8: beside 8-bit weights, round activations to e4m3 in groups; auto: fp8 on GPUs, whose "
                  "FP8 units multiply prompts so, none on the CPU")
      ->check(CLI::IsMember({"auto", "none", "fp8"}))
      ->capture_default_str();
  command.add_option("--load-format", load_format, "auto, or dummy: random weights, no weight file is read")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  command.add_option("--num-layers", num_layers, "With dummy weights, keep only the first layers (0: all)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--device", device, "auto (a GPU if there is one), cpu, cuda or cuda:N")
      ->capture_default_str();
  command
      .add_option("--cuda-architecture", cuda_architecture,
                  "Kernels of this architecture: 80 or 90 (0: the best of the device)")
      ->check(CLI::IsMember({0, 80, 90}))
      ->capture_default_str();
  command.add_option("--threads", threads, "CPU threads (0: all processors)")->check(CLI::NonNegativeNumber);
  command
      .add_option(
          "--max-model-len", max_model_len,
          "Longest context in tokens, e.g. 4096, 128k, 1M; auto: what the model takes and the memory holds")
      ->capture_default_str();
  command.add_flag("--dry-run", dry_run, "Print the memory plan and stop");
}

std::optional<int64_t> parse_token_count(const std::string& text, const std::string& option) {
  if (text == "auto" || text == "-1") return std::nullopt;
  int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  const std::string suffix(rest, end);
  int64_t factor = suffix.empty() ? 1 : 0;
  if (suffix == "k" || suffix == "K") factor = 1024;
  if (suffix == "m" || suffix == "M") factor = 1024 * 1024;
  if (error != std::errc() || factor == 0 || count < 1 || count > (int64_t{1} << 40U)) {
    fail("{} is \"{}\"; expected auto or a number of tokens such as 4096, 128k or 1M", option, text);
  }
  return count * factor;
}

DType activation_dtype(const std::string& option, const nlohmann::json& config) {
  std::string wanted = option;
  if (wanted == "auto") {
    wanted = "bfloat16";
    for (const char* field : {"torch_dtype", "dtype"}) {
      const auto value = config.find(field);
      if (value != config.end() && value->is_string()) wanted = value->get<std::string>();
    }
  }
  return wanted == "float32" ? DType::kF32 : DType::kBF16;
}

models::ComputeOptions compute_options(const ModelOptions& options, const nlohmann::json& config) {
  models::ComputeOptions compute;
  compute.activation_dtype = activation_dtype(options.dtype, config);
  compute.kv_cache_dtype = cache_dtype(options.kv_cache_dtype);
  compute.index_cache_dtype = cache_dtype(options.index_cache_dtype);
  compute.fp8_activations = options.activation_quantization == "fp8";
  compute.parallel = options.parallel;
  return compute;
}

nlohmann::json read_model_config(const ModelOptions& options) {
  nlohmann::json config = formats::read_config(options.model);
  if (options.num_layers > 0) {
    if (options.load_format != "dummy") fail("--num-layers {} needs --load-format dummy", options.num_layers);
    config = models::with_first_layers(config, options.num_layers);
  }
  return config;
}

ModelRuntime set_up_model(const ModelOptions& options) {
  ModelRuntime runtime;
  runtime.source = options.model;
  runtime.config = read_model_config(options);
  runtime.compute = compute_options(options, runtime.config);
  models::describe_model(
      runtime.config);  // a configuration that cannot run is refused before weights are looked for
  runtime.pool = std::make_unique<ThreadPool>(options.threads);
  runtime.device = std::make_unique<ComputeDevice>(options.device, options.cuda_architecture, *runtime.pool);
  runtime.backend = &runtime.device->backend();
  runtime.compute.backend = runtime.backend;
  if (options.activation_quantization == "auto") {
    runtime.compute.fp8_activations =
        !runtime.backend->is_host() && runtime.compute.activation_dtype == DType::kBF16;
  }
  runtime.planned = options.dry_run;
  if (options.dry_run) {
    runtime.summary = models::summarize_model(runtime.config, nullptr, runtime.compute);
    runtime.model = models::plan_model(runtime.config, runtime.compute);
    return runtime;
  }
  if (options.load_format == "dummy") {
    runtime.weights = models::make_dummy_weights(runtime.config, 1);
  } else {
    runtime.weights = std::make_unique<formats::Checkpoint>(formats::Checkpoint::open(options.model));
  }
  runtime.summary = models::summarize_model(runtime.config, runtime.weights.get(), runtime.compute);
  if (const int64_t available = runtime.backend->available_bytes();
      runtime.summary.weight_bytes > available) {
    fail(
        "{}: the weights take {} bytes and {} bytes of memory are available on the {}; use one with more "
        "memory, "
        "or --load-format dummy --num-layers N to exercise a part",
        options.model, runtime.summary.weight_bytes, available, runtime.backend->name());
  }
  const std::unique_ptr<formats::Progress> progress = make_progress(options, runtime.summary.weight_bytes);
  runtime.model = models::load_model(runtime.config, runtime.compute, *runtime.weights, *progress);
  return runtime;
}

int64_t ModelRuntime::context_length(const ModelOptions& options, int64_t wanted) const {
  const int64_t limit = model->max_position_embeddings();
  const std::optional<int64_t> given = parse_token_count(options.max_model_len, "--max-model-len");
  if (given && *given > limit)
    fail("--max-model-len {} is more than the {} positions of this model", *given, limit);
  return std::min(given.value_or(wanted), limit);
}

engine::SessionOptions ModelRuntime::longest_session(const ModelOptions& options) const {
  return {context_length(options, model->max_position_embeddings())};
}

std::string describe_memory(const ModelRuntime& runtime, const engine::MemoryPlan& plan) {
  const int64_t total = runtime.summary.weight_bytes + plan.total_bytes();
  // On a device loaded weights are in its memory already.
  const bool is_loaded = !runtime.planned && !runtime.backend->is_host();
  const int64_t available =
      runtime.backend->available_bytes() + (is_loaded ? runtime.summary.weight_bytes : 0);
  std::string text;
  const auto line = [&text](std::string_view what, int64_t bytes) {
    text += fmt::format("  {:<16}{:>20} bytes\n", what, bytes);
  };
  line("weights", runtime.summary.weight_bytes);
  line("KV cache", plan.kv_cache_bytes);
  if (plan.index_cache_bytes > 0) line("index cache", plan.index_cache_bytes);
  line("linear states", plan.linear_state_bytes);
  if (plan.host_state_bytes > 0) line("states on host", plan.host_state_bytes);
  line("activations", plan.activation_bytes);
  line("step buffers", plan.buffer_bytes);
  line("total", total);
  line("available", available);
  text += total <= available ? "  it fits\n"
                             : fmt::format("  it does not fit: {} bytes are missing\n", total - available);
  return text;
}

std::string describe_plan(const ModelRuntime& runtime, const engine::SessionOptions& session) {
  return fmt::format("memory plan for a context of {} tokens, {} activations\n", session.max_context,
                     runtime.compute.activation_dtype == DType::kBF16 ? "bfloat16" : "float32") +
         describe_memory(runtime, engine::Session::plan(*runtime.model, *runtime.backend, session));
}

}  // namespace minimax::apps
