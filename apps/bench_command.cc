// minimax bench: prefill and decode speed of a model, as shares of what this machine can do at best.
//
// The machine's state drifts within seconds, so every measurement has probes of the same kind right before
// and right after it, and shares are medians over repetitions of measured rate / mean of its two probes.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <vector>

#include "apps/batched_decode.h"
#include "apps/commands.h"
#include "apps/model_setup.h"
#include "apps/op_times.h"

namespace minimax::apps {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions {
  ModelOptions model;
  int64_t prompt_tokens = 2048;
  int64_t prompt_before_decode = 512;
  int64_t decode_tokens = 64;
  int64_t prefill_chunk = 2048;
  std::vector<int64_t> batches;
  int64_t batched_steps = 16;
  int repetitions = 5;
  bool ops = false;
  bool json = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Rates of one kind of run: what was reached, the floor's rate around it, their ratio.
struct Series {
  std::vector<double> tokens_per_second;
  std::vector<double> probe;
  std::vector<double> share;

  void add(double tokens, double seconds, double work_per_token, double probe_before, double probe_after) {
    const double floor_rate = (probe_before + probe_after) / 2;
    tokens_per_second.push_back(tokens / seconds);
    probe.push_back(floor_rate);
    share.push_back(tokens / seconds * work_per_token / floor_rate);
  }
};

// Decode steps of one batch size: what they took, and what reading and writing their bytes would have taken.
struct BatchSeries {
  int64_t batch = 0;
  double experts_per_layer = 0;  // distinct ones, mean over layers and steps; 0 without expert layers
  double bytes_per_step = 0;
  std::vector<double> seconds;
  std::vector<double> floor;
  std::vector<double> probe;
  std::vector<double> ratio;

  void add(double step_seconds, double probe_before, double probe_after) {
    probe.push_back((probe_before + probe_after) / 2);
    seconds.push_back(step_seconds);
    floor.push_back(bytes_per_step / probe.back());
    ratio.push_back(seconds.back() / floor.back());
  }
};

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options), runtime_(set_up_model(options.model)) {
    if (options.prompt_tokens == 0) return;
    const int64_t context =
        std::max(options.prompt_tokens, options.prompt_before_decode + options.decode_tokens + 1);
    session_ = std::make_unique<engine::Session>(
        *runtime_.model, *runtime_.backend,
        engine::SessionOptions{runtime_.context_length(options.model, context), options.prefill_chunk, 1});
  }

  void run() {
    if (session_ != nullptr) {
      StepTraffic traffic(*runtime_.backend);  // looked at while memory and code are warmed up
      session_->set_tracer(&traffic);
      prefill_once();
      session_->set_tracer(nullptr);
      attention_flops_per_token_ = traffic.attention_flops() / static_cast<double>(options_.prompt_tokens);
    }
    for (int i = 0; i < options_.repetitions && session_ != nullptr; ++i) {
      measure_decode();
      measure_prefill();
    }
    for (const int64_t batch : options_.batches) measure_batch(batch);
    if (options_.ops) measure_ops();
  }

  void print() const {
    if (session_ == nullptr && !options_.json) {
      fmt::print("{}, medians of {} repetitions\n", runtime_.device->description(), options_.repetitions);
      std::cout << op_tables_;
      return print_batches();
    }
    const double decode_bytes = weight_bytes_per_token();
    const double prefill_flops = 2 * static_cast<double>(runtime_.summary.active_parameters);
    if (options_.json) {
      nlohmann::json all = nlohmann::json::object();
      for (const BatchSeries& series : batches_) all["batched_decode"].push_back(describe(series));
      if (session_ == nullptr) {
        std::cout << all.dump() << "\n";
        return;
      }
      const nlohmann::json result = {{"decode",
                                      {{"tokens_per_second", median(decode_.tokens_per_second)},
                                       {"bytes_per_token", decode_bytes},
                                       {"read_bandwidth", median(decode_.probe)},
                                       {"share_of_floor", median(decode_.share)}}},
                                     {"prefill",
                                      {{"tokens_per_second", median(prefill_.tokens_per_second)},
                                       {"flops_per_token", prefill_flops},
                                       {"attention_flops_per_token", attention_flops_per_token_},
                                       {"gemm_rate", median(prefill_.probe)},
                                       {"gemm_dtype", rate_name()},
                                       {"share_of_floor", median(prefill_.share)}}}};
      all.update(result);
      std::cout << all.dump() << "\n";
      return;
    }
    fmt::print("{}, medians of {} repetitions\n", runtime_.device->description(), options_.repetitions);
    fmt::print(
        "decode, batch 1 after {} tokens:  {:8.1f} tokens/s  {:6.1f} GB/s of weights, {:6.1f} GB/s measured: "
        "{:.0f} %\n",
        options_.prompt_before_decode, median(decode_.tokens_per_second),
        median(decode_.tokens_per_second) * decode_bytes / 1e9, median(decode_.probe) / 1e9,
        100 * median(decode_.share));
    fmt::print(
        "prefill of {} tokens:           {:8.1f} tokens/s  {:6.1f} GFLOP/s of products with weights, {:6.1f} "
        "GFLOP/s of {} measured: {:.1f} %, with attention's {:.1f} %\n",
        options_.prompt_tokens, median(prefill_.tokens_per_second),
        median(prefill_.tokens_per_second) * prefill_flops / 1e9, median(prefill_.probe) / 1e9, rate_name(),
        100 * median(prefill_.share),
        100 * median(prefill_.share) * (prefill_flops + attention_flops_per_token_) / prefill_flops);
    std::cout << op_tables_;
    print_batches();
  }

 private:
  void print_batches() const {
    for (const BatchSeries& series : batches_) {
      fmt::print(
          "decode, batch {} after {} tokens each: {:7.2f} ms a step ({:.1f} tokens/s), {:.1f} MB and {:.1f} "
          "experts "
          "a layer, floor {:.2f} ms at {:.1f} GB/s: {:.2f}\n",
          series.batch, options_.prompt_before_decode, 1e3 * median(series.seconds),
          static_cast<double>(series.batch) / median(series.seconds), series.bytes_per_step / 1e6,
          series.experts_per_layer, 1e3 * median(series.floor), median(series.probe) / 1e9,
          median(series.ratio));
    }
  }

  // Bytes of weights a token at batch 1 must read; caches and activations come on top and are not credited.
  double weight_bytes_per_token() const {
    return static_cast<double>(runtime_.summary.active_bytes_with_head);
  }

  static nlohmann::json describe(const BatchSeries& series) {
    return {{"batch", series.batch},
            {"seconds_per_step", median(series.seconds)},
            {"floor_seconds", median(series.floor)},
            {"bytes_per_step", series.bytes_per_step},
            {"experts_per_layer", series.experts_per_layer},
            {"read_bandwidth", median(series.probe)},
            {"times_floor", median(series.ratio)}};
  }

  // Mean bytes of `steps` steps with the experts that their routing chose, each read once a step, and caches.
  double bytes_of(const StepTraffic& traffic, double steps) const {
    const models::ModelSummary& model = runtime_.summary;
    const auto experts = static_cast<double>(model.component(models::Component::kExperts).bytes);
    const auto share =
        static_cast<double>(model.num_experts_per_tok) / static_cast<double>(model.num_experts);
    const double others = weight_bytes_per_token() - experts * share;
    if (traffic.expert_layers() == 0) return others + traffic.cache_bytes() / steps;
    const auto chosen = static_cast<double>(traffic.distinct_experts()) /
                        static_cast<double>(traffic.expert_layers() * model.num_experts);
    return others + experts * chosen + traffic.cache_bytes() / steps;
  }

  void measure_batch(int64_t batch) {
    BatchedDecode decode(*runtime_.model, *runtime_.backend, batch, options_.prompt_before_decode,
                         options_.batched_steps);
    BatchSeries& series = batches_.emplace_back();
    series.batch = batch;
    decode.step(random_tokens(batch), nullptr);  // warms up
    for (int i = 0; i < options_.repetitions; ++i) {
      decode.reset();
      StepTraffic traffic(*runtime_.backend);
      std::vector<std::vector<int32_t>> tokens;
      for (int64_t step = 0; step < options_.batched_steps; ++step) tokens.push_back(random_tokens(batch));
      // Looking at a device's operands would slow its steps, so there they are counted in a run of their own.
      const bool counts_meanwhile = runtime_.backend->is_host();
      const auto run = [&](ops::Tracer* tracer) {
        for (const std::vector<int32_t>& step_tokens : tokens) decode.step(step_tokens, tracer);
      };
      if (!counts_meanwhile) {
        run(&traffic);
        decode.reset();
        decode.step(tokens.front(), nullptr);  // recorded
        decode.reset();
      }
      const double before = bandwidth();
      const auto start = Clock::now();
      run(counts_meanwhile ? &traffic : nullptr);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      const auto steps = static_cast<double>(options_.batched_steps);
      series.experts_per_layer = static_cast<double>(traffic.distinct_experts()) /
                                 static_cast<double>(std::max<int64_t>(1, traffic.expert_layers()));
      series.bytes_per_step = bytes_of(traffic, steps);
      series.add(seconds / steps, before, bandwidth());
    }
  }

  // One prefill step and decode steps, op by op.
  void measure_ops() {
    const double read = bandwidth(), rate = multiply_rate();
    OpTimes times(*runtime_.backend);
    const auto table = [&](const std::string& what) {
      op_tables_ += what + "\n" + times.table(read, rate);
      times.clear();
    };
    if (session_ != nullptr) {
      session_->set_tracer(&times);
      prefill_once();
      session_->set_tracer(nullptr);
      table(fmt::format("ops of a prefill of {} tokens:", options_.prompt_tokens));
    }
    for (const int64_t batch : options_.batches) {
      BatchedDecode decode(*runtime_.model, *runtime_.backend, batch, options_.prompt_before_decode, 4);
      decode.step(random_tokens(batch), nullptr);  // warms up
      for (int step = 0; step < 3; ++step) decode.step(random_tokens(batch), &times);
      table(fmt::format("ops of decode steps, batch {}:", batch));
    }
  }

  double bandwidth() { return runtime_.device->measure_bandwidth(); }
  // Of the arithmetic that most weights are multiplied in.
  bool has_codes() const {
    constexpr int64_t kBitsOfCodes = 12;  // at most, of a parameter, its scales counted
    return 8 * runtime_.summary.weight_bytes < kBitsOfCodes * runtime_.summary.total_parameters;
  }
  std::string rate_name() const { return runtime_.device->rate_name(has_codes()); }
  double multiply_rate() { return runtime_.device->measure_rate(has_codes()); }

  std::vector<int32_t> random_tokens(int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) {
      random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL;
      token = static_cast<int32_t>((random_ >> 33U) % static_cast<uint64_t>(runtime_.model->vocab_size()));
    }
    return tokens;
  }

  double seconds_of(const std::vector<int32_t>& tokens, bool one_by_one) {
    const auto start = Clock::now();
    for (size_t i = 0; one_by_one && i < tokens.size(); ++i)
      session_->append(std::span(tokens).subspan(i, 1));
    if (!one_by_one) session_->append(tokens);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  double prefill_once() {
    session_->reset();
    return seconds_of(random_tokens(options_.prompt_tokens), false);
  }

  void measure_prefill() {
    const double before = multiply_rate();
    const double seconds = prefill_once();
    prefill_.add(static_cast<double>(options_.prompt_tokens), seconds,
                 2 * static_cast<double>(runtime_.summary.active_parameters), before, multiply_rate());
  }

  void measure_decode() {
    session_->reset();
    session_->append(random_tokens(options_.prompt_before_decode));
    const double before = bandwidth();
    const double seconds = seconds_of(random_tokens(options_.decode_tokens), true);
    decode_.add(static_cast<double>(options_.decode_tokens), seconds, weight_bytes_per_token(), before,
                bandwidth());
  }

  BenchOptions options_;
  ModelRuntime runtime_;
  std::unique_ptr<engine::Session> session_;  // null where only batches are measured
  uint64_t random_ = 1;
  Series decode_;
  Series prefill_;
  double attention_flops_per_token_ = 0;
  std::vector<BatchSeries> batches_;
  std::string op_tables_;
};

void run_bench(const BenchOptions& options) {
  if (options.prompt_tokens == 0 && options.batches.empty())
    fail("--prompt-tokens 0 measures nothing without --batch; name batch sizes, e.g. --batch 1,8");
  if (options.model.dry_run) {
    const ModelRuntime runtime = set_up_model(options.model);
    const int64_t context = runtime.context_length(
        options.model,
        std::max(options.prompt_tokens, options.prompt_before_decode + options.decode_tokens + 1));
    std::cout << describe_plan(runtime, {context, options.prefill_chunk, 1});
    return;
  }
  Bench bench(options);
  bench.run();
  bench.print();
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "Measure prefill and decode as shares of the machine's best");
  options->model.add_to(*command);
  command
      ->add_option("--prompt-tokens", options->prompt_tokens,
                   "Tokens of the measured prefill; 0: only what --batch names")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--decode-context", options->prompt_before_decode,
                   "Tokens in the context when decoding starts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--decode-tokens", options->decode_tokens, "Tokens of the measured decode")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--batch", options->batches, "Also decode this many sequences at once, e.g. 8,16")
      ->check(CLI::PositiveNumber)
      ->delimiter(',');
  command->add_option("--prefill-chunk", options->prefill_chunk, "Most tokens of one prefill step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--repetitions", options->repetitions)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--ops", options->ops,
                    "Also time each op of a prefill and of the decodes that --batch names");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([options] { run_bench(*options); });
}

}  // namespace minimax::apps
