// How often an index cache in e4m3 chooses the blocks that one in BF16 chooses: the trained demo model reads
// prompts longer than what its sparse attention takes, and every layer's index queries and keys are rounded
// in several ways and compared on the same input.
//
//   index_precision [MODEL] [PROMPTS]     models/demo-m3 and 2 prompts when not given
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "core/dtype.h"
#include "engine/session.h"
#include "eval/eval.h"
#include "formats/checkpoint.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace minimax {
namespace {

namespace fs = std::filesystem;

float rounded_to_bf16(float x) { return to_float(to_bf16(x)); }
float rounded_to_e4m3(float x) { return to_float(to_e4m3(x)); }
// With a power of two that brings the largest of a key to the top of e4m3's range.
void scaled_to_e4m3(std::vector<float>& x, size_t begin, size_t count) {
  float largest = 0;
  for (size_t i = begin; i < begin + count; ++i) largest = std::max(largest, std::abs(x[i]));
  const float scale = largest == 0 ? 1 : std::exp2(std::floor(std::log2(448 / largest)));
  for (size_t i = begin; i < begin + count; ++i) x[i] = rounded_to_e4m3(x[i] * scale) / scale;
}

enum Rounding : uint8_t { kBf16, kE4m3, kE4m3Scaled, kE4m3Centred, kNone };
constexpr int kRoundings = 5;

struct Way {
  const char* name;
  Rounding q, k;
};
constexpr std::array kWays = {Way{"queries and keys in F32", kNone, kNone},
                              Way{"queries and keys in e4m3", kE4m3, kE4m3},
                              Way{"keys in e4m3, queries in BF16", kBf16, kE4m3},
                              Way{"queries in e4m3, keys in BF16", kE4m3, kBf16},
                              Way{"both in e4m3, a power of two for each row", kE4m3Scaled, kE4m3Scaled},
                              Way{"keys in e4m3 less the layer's mean key", kBf16, kE4m3Centred}};

// Rows of one layer: index queries [T, heads, dim] and keys [T, dim], in F32.
struct Layer {
  std::vector<float> queries, keys;
};

// Copies what the indexer is given, in the order of layers.
class Watcher final : public ops::Tracer {
 public:
  std::vector<Layer> layers;
  int64_t heads = 0, dim = 0, block_size = 0, layer = 0;

  void on_op(const ops::OpRecord& record) override {
    if (record.op != ops::IndexBlockScores::kName) return;
    const Tensor &q = record.operands[0].tensor, &cache = record.operands[1].tensor,
                 &table = record.operands[2].tensor, &starts = record.operands[3].tensor,
                 &lens = record.operands[4].tensor;
    heads = q.dim(1);
    dim = q.dim(2);
    block_size = cache.dim(1);
    if (layer == static_cast<int64_t>(layers.size())) layers.emplace_back();
    Layer& to = layers[static_cast<size_t>(layer++)];
    const int64_t rows = starts.data<int32_t>()[1], length = lens.data<int32_t>()[0];
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t g = 0; g < heads; ++g) {
        const float* row = q.data<float>() + t * q.stride(0) + g * q.stride(1);
        to.queries.insert(to.queries.end(), row, row + dim);
      }
    }
    for (int64_t i = length - rows; i < length; ++i) {
      const int64_t slot = table.data<int32_t>()[i / block_size] * block_size + i % block_size;
      const float* row = cache.data<float>() + slot * dim;
      to.keys.insert(to.keys.end(), row, row + dim);
    }
  }
};

// Rows of `dim` numbers. Centred: the mean of all rows is the same for every key and cannot change the order.
std::vector<float> rounded(const std::vector<float>& x, Rounding how, int64_t dim) {
  std::vector<float> y = x;
  const auto width = static_cast<size_t>(dim);
  if (how == kBf16) std::transform(y.begin(), y.end(), y.begin(), rounded_to_bf16);
  if (how == kE4m3Scaled) {
    for (size_t i = 0; i < y.size(); i += width) scaled_to_e4m3(y, i, width);
  }
  if (how == kE4m3Centred) {
    std::vector<double> mean(width);
    for (size_t i = 0; i < y.size(); ++i)
      mean[i % width] += y[i] * static_cast<double>(width) / static_cast<double>(y.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] -= static_cast<float>(mean[i % width]);
  }
  if (how == kE4m3 || how == kE4m3Centred) std::transform(y.begin(), y.end(), y.begin(), rounded_to_e4m3);
  return y;
}

// The chosen blocks of a row and head, ascending.
std::vector<int64_t> choose(const float* query, const std::vector<float>& keys, int64_t position, int64_t dim,
                            int64_t block_size, int64_t count) {
  const int64_t blocks = position / block_size + 1;
  std::vector<std::pair<float, int64_t>> ranked;
  for (int64_t b = 0; b < blocks; ++b) {
    float best = -INFINITY;
    for (int64_t i = b * block_size; i <= std::min(position, (b + 1) * block_size - 1); ++i) {
      float sum = 0;
      for (int64_t d = 0; d < dim; ++d) sum += query[d] * keys[static_cast<size_t>(i * dim + d)];
      best = std::max(best, sum);
    }
    ranked.emplace_back(b + 1 == blocks ? -INFINITY : -best, b);
  }
  std::sort(ranked.begin(), ranked.end());
  ranked.resize(static_cast<size_t>(std::min(count, blocks)));
  std::vector<int64_t> chosen;
  for (const auto& [score, b] : ranked) chosen.push_back(b);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

struct Counts {
  int64_t queries = 0, same = 0, blocks = 0, kept = 0;
};

void compare(const Watcher& watched, int64_t top_k, std::array<Counts, kWays.size()>& counts) {
  const int64_t dim = watched.dim, heads = watched.heads;
  for (const Layer& layer : watched.layers) {
    const auto rows = static_cast<int64_t>(layer.keys.size()) / dim;
    std::array<std::vector<float>, kRoundings> queries, keys;
    for (size_t how = 0; how < kRoundings; ++how) {
      queries[how] = rounded(layer.queries, static_cast<Rounding>(how), dim);
      keys[how] = rounded(layer.keys, static_cast<Rounding>(how), dim);
    }
    // Those that have a choice, every eighth.
    for (int64_t t = top_k * watched.block_size; t < rows; t += 8) {
      for (int64_t g = 0; g < heads; ++g) {
        const auto at = static_cast<size_t>((t * heads + g) * dim);
        const auto expected = choose(queries[0].data() + at, keys[0], t, dim, watched.block_size, top_k);
        for (size_t w = 0; w < kWays.size(); ++w) {
          const auto chosen =
              choose(queries[kWays[w].q].data() + at, keys[kWays[w].k], t, dim, watched.block_size, top_k);
          std::vector<int64_t> both;
          std::set_intersection(chosen.begin(), chosen.end(), expected.begin(), expected.end(),
                                std::back_inserter(both));
          ++counts[w].queries;
          counts[w].same += both.size() == expected.size() ? 1 : 0;
          counts[w].blocks += static_cast<int64_t>(expected.size());
          counts[w].kept += static_cast<int64_t>(both.size());
        }
      }
    }
  }
}

void run(const fs::path& folder, int prompts) {
  auto checkpoint = formats::Checkpoint::open(folder);
  const auto tokenizer = tokenizer::Tokenizer::load(folder);
  const auto chat = tokenizer::ChatTemplate::load(folder);
  const nlohmann::json config = formats::read_config(folder);
  const auto top_k =
      config.at("text_config").at("sparse_attention_config").at("sparse_topk_blocks").get<int64_t>();
  ThreadPool pool;
  const auto backend = cpu::make_cpu_backend(pool);
  formats::Progress silent;
  const auto model = models::load_model(config, {DType::kF32}, checkpoint, silent);
  std::array<Counts, kWays.size()> counts;
  for (int i = 0; i < prompts; ++i) {
    const eval::Case drawn = eval::draw("lookup_sparse", 31, static_cast<uint64_t>(i), eval::DemoModel::kM3);
    const auto ids = tokenizer.encode(chat.render(drawn.messages, drawn.tools, true, nullptr).text);
    engine::Session session(*model, *backend, {static_cast<int64_t>(ids.size()) + 1});
    Watcher watcher;
    session.set_tracer(&watcher);
    for (size_t begin = 0; begin < ids.size(); begin += 2048) {
      watcher.layer = 0;
      session.append(std::span(ids).subspan(begin, std::min<size_t>(2048, ids.size() - begin)));
    }
    compare(watcher, top_k, counts);
    fmt::print("prompt of {} tokens, {} sparse layers, {} index heads\n", ids.size(), watcher.layers.size(),
               watcher.heads);
  }
  fmt::print("queries with a choice, against queries and keys in BF16:\n");
  for (size_t w = 0; w < kWays.size(); ++w) {
    const Counts& c = counts[w];
    fmt::print("{:45} {} queries, {:.2f} % choose the same blocks, {:.2f} % of blocks kept\n", kWays[w].name,
               c.queries, 100.0 * static_cast<double>(c.same) / static_cast<double>(c.queries),
               100.0 * static_cast<double>(c.kept) / static_cast<double>(c.blocks));
  }
}

}  // namespace
}  // namespace minimax

int main(int argc, char** argv) {
  try {
    minimax::run(argc > 1 ? argv[1] : "models/demo-m3", argc > 2 ? std::stoi(argv[2]) : 2);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
