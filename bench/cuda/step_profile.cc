// A decode step kernel by kernel, as the GPU ran it inside a graph:
//
//   step_profile -m DIR --load-format dummy --num-layers 16 --batch 1 --decode-context 512
//
// CUPTI says when kernels start and end; it makes steps longer, between them. Layers that are alike are found
// by their kernels' names, and medians over layers and steps are printed: `next` is the time until the kernel
// after starts, which adds up to the layer's (a kernel that is started early waits for the one before, so
// that ends say more than starts), `end` the time from the end of the kernel before to its own, `idle` what
// no kernel ran.
#include <cupti.h>
#include <cxxabi.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "apps/batched_decode.h"
#include "apps/model_setup.h"

namespace minimax::apps {
namespace {

struct Kernel {
  std::string name;
  double start = 0, end = 0;  // us
};

// "route_kernel<8>" of a mangled name: no namespaces, no parameters.
std::string short_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> demangled(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), &std::free);
  std::string name = status == 0 ? demangled.get() : mangled;
  for (const std::string_view part : {"(anonymous namespace)::", "minimax::cuda::", "void "}) {
    for (size_t at = name.find(part); at != std::string::npos; at = name.find(part))
      name.erase(at, part.size());
  }
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (depth == 0 && name[i] == '(') name.resize(i);
  }
  constexpr size_t kLongest = 60;
  if (name.size() > kLongest) name.resize(kLongest);
  return name;
}

// Kernels that ran since the last take(), in the order of their start. One at a time.
class KernelTimes {
 public:
  KernelTimes() {
    check(cuptiActivityRegisterCallbacks(&KernelTimes::give_buffer, &KernelTimes::take_buffer));
    check(cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL));
  }
  ~KernelTimes() { cuptiActivityDisable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL); }
  KernelTimes(const KernelTimes&) = delete;
  KernelTimes& operator=(const KernelTimes&) = delete;

  static std::vector<Kernel> take() {
    check(cuptiActivityFlushAll(1));
    const std::lock_guard lock(mutex());
    std::vector<Kernel> taken = std::move(kernels());
    kernels().clear();
    std::sort(taken.begin(), taken.end(), [](const Kernel& x, const Kernel& y) { return x.start < y.start; });
    return taken;
  }

 private:
  static constexpr size_t kBufferBytes = size_t{8} << 20U;

  static void check(CUptiResult result) {
    if (result == CUPTI_SUCCESS) return;
    const char* text = nullptr;
    cuptiGetResultString(result, &text);
    fail("CUPTI: {}", text == nullptr ? "unknown error" : text);
  }
  // Never destroyed: CUPTI may give buffers back until the process ends.
  static std::mutex& mutex() {
    static auto* own = new std::mutex;
    return *own;
  }
  static std::vector<Kernel>& kernels() {
    static auto* own = new std::vector<Kernel>;
    return *own;
  }
  static void CUPTIAPI give_buffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
    *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, kBufferBytes));
    *bytes = *buffer == nullptr ? 0 : kBufferBytes;
    *most_records = 0;
  }
  static void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
    const std::lock_guard lock(mutex());
    CUpti_Activity* record = nullptr;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
      const auto* kernel = reinterpret_cast<const KernelRecord*>(record);
      if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || kernel->name == nullptr) continue;
      kernels().push_back({short_name(kernel->name), static_cast<double>(kernel->start) * 1e-3,
                           static_cast<double>(kernel->end) * 1e-3});
    }
    std::free(buffer);  // NOLINT: give_buffer's, which CUPTI hands back
  }

  using KernelRecord = CUpti_ActivityKernel9;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Where the longest stretch of kernels begins that are the kernels `count` before them, and how many layers
// of `count` kernels it makes.
struct Layers {
  size_t first = 0, count = 0, layers = 0;
};
Layers find_layers(const std::vector<Kernel>& step) {
  constexpr size_t kFewest = 5, kMost = 60;  // kernels of a layer
  Layers best;
  for (size_t count = kFewest; count <= kMost; ++count) {
    size_t run = 0;
    for (size_t i = count; i <= step.size(); ++i) {
      if (i < step.size() && step[i].name == step[i - count].name) {
        ++run;
        continue;
      }
      if (run + count > best.layers * best.count + count / 2 && run >= count)
        best = {i - run - count, count, (run + count) / count};
      run = 0;
    }
  }
  return best;
}

struct Row {
  std::vector<double> us, next, end, idle;
};

void print_rows(const std::vector<std::pair<std::string, Row>>& rows) {
  fmt::print("  {:<62}{:>8}{:>8}{:>8}{:>8}\n", "kernel", "us", "next", "end", "idle");
  double next = 0, end = 0, idle = 0;
  for (const auto& [name, row] : rows) {
    fmt::print("  {:<62}{:>8.2f}{:>8.2f}{:>8.2f}{:>8.2f}\n", name, median(row.us), median(row.next),
               median(row.end), median(row.idle));
    next += median(row.next);
    end += median(row.end);
    idle += median(row.idle);
  }
  fmt::print("  {:<62}{:>8}{:>8.2f}{:>8.2f}{:>8.2f}\n", "", "", next, end, idle);
}

void print_steps(const std::vector<std::vector<Kernel>>& steps) {
  const std::vector<Kernel>& step = steps.back();
  const Layers layers = find_layers(step);
  std::map<std::string, std::vector<double>> all;
  std::vector<std::pair<std::string, Row>> before(layers.first), layer(layers.count), after;
  for (const std::vector<Kernel>& s : steps) {
    if (s.size() != step.size()) continue;
    double end = s.front().start;
    for (size_t i = 0; i < s.size(); ++i) {
      all[s[i].name].push_back(s[i].end - s[i].start);
      const size_t behind = layers.first + layers.count * layers.layers;
      if (i >= behind && i - behind >= after.size()) after.emplace_back();
      auto& [name, row] = i < layers.first ? before[i]
                          : i < behind     ? layer[(i - layers.first) % layers.count]
                                           : after[i - behind];
      name = s[i].name;
      row.end.push_back(s[i].end - end);
      end = std::max(end, s[i].end);
      const double next = i + 1 < s.size() ? s[i + 1].start : end;
      row.us.push_back(s[i].end - s[i].start);
      row.next.push_back(next - s[i].start);
      row.idle.push_back(std::max(0.0, next - end));
    }
  }
  fmt::print("all kernels of a step:\n  {:<62}{:>8}{:>10}\n", "kernel", "calls", "us each");
  for (const auto& [name, us] : all)
    fmt::print("  {:<62}{:>8}{:>10.2f}\n", name, us.size() / steps.size(), median(us));
  if (!before.empty()) {
    fmt::print("before:\n");
    print_rows(before);
  }
  fmt::print("one of {} layers:\n", layers.layers);
  print_rows(layer);
  if (!after.empty()) {
    fmt::print("after:\n");
    print_rows(after);
  }
}

struct ProfileOptions {
  ModelOptions model;
  std::vector<int64_t> batches = {1};
  int64_t context = 512;
  int64_t steps = 16;
};

std::vector<int32_t> tokens_of(int64_t batch, int64_t step, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(batch));
  uint64_t random = static_cast<uint64_t>(step) + 1;
  for (int32_t& token : tokens) {
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    token = static_cast<int32_t>((random >> 33U) % static_cast<uint64_t>(vocab));
  }
  return tokens;
}

void profile(const ProfileOptions& options) {
  const ModelRuntime runtime = set_up_model(options.model);
  fmt::print("{}\n", runtime.device->description());
  for (const int64_t batch : options.batches) {
    constexpr int64_t kWarmUp = 4;
    const auto run = [&](auto&& around) {
      BatchedDecode decode(*runtime.model, *runtime.backend, batch, options.context, options.steps + kWarmUp);
      for (int64_t step = 0; step < options.steps + kWarmUp; ++step) {
        const std::vector<int32_t> tokens = tokens_of(batch, step, runtime.model->vocab_size());
        const auto begin = std::chrono::steady_clock::now();
        decode.step(tokens, nullptr);
        if (step >= kWarmUp)
          around(1e6 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
    };
    std::vector<double> plain, traced;
    run([&](double us) { plain.push_back(us); });
    std::vector<std::vector<Kernel>> steps;
    const KernelTimes times;
    run([&](double us) {
      std::vector<Kernel> step = KernelTimes::take();
      if (traced.empty()) step.clear();  // with what ran before
      traced.push_back(us);
      if (!step.empty()) steps.push_back(std::move(step));
    });
    if (steps.empty()) fail("CUPTI saw no kernels");
    fmt::print("\nbatch {} after {} tokens: {:.1f} us a step, {:.1f} us while it is watched, {} kernels\n",
               batch, options.context, median(plain), median(traced), steps.back().size());
    print_steps(steps);
  }
}

}  // namespace
}  // namespace minimax::apps

int main(int argc, char** argv) {
  CLI::App app{"step_profile: a decode step kernel by kernel"};
  minimax::apps::ProfileOptions options;
  options.model.add_to(app);
  app.add_option("--batch", options.batches, "Sequences of a step, e.g. 1,4,32")->delimiter(',');
  app.add_option("--decode-context", options.context, "Tokens in the context of each");
  app.add_option("--steps", options.steps);
  CLI11_PARSE(app, argc, argv);
  try {
    minimax::apps::profile(options);
  } catch (const std::exception& error) {
    std::cerr << "step_profile: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
