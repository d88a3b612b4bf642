// Every op of the CPU backend at the shapes of the M1-like model of docs/performance.md and of MiniMax-M1
// itself; attention, linear layers and experts also at M2-like and M3-like shapes.
//
// The floor of an op is the larger of bytes / read bandwidth and operations / multiply rate, both measured in
// this process right before and after each benchmark; `share` is floor time over measured time. Operands
// rotate through copies larger than the last-level cache, since in a model each layer's weights come from
// memory.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <deque>
#include <functional>
#include <numeric>
#include <random>

#include "backends/cpu/cpu_backend.h"
#include "core/host_memory.h"
#include "ops/backend.h"

namespace minimax::ops {
namespace {

constexpr int64_t kCacheBytes = int64_t{96} << 20U;  // rotate through at least this much

// The backend, the probes and the memory of operands, shared by all benchmarks. Operands lie in large pieces,
// as weights do in a model: alone, a small expert would get small pages, which read slower.
struct Lab {
  static constexpr int64_t kPieceBytes = int64_t{64} << 20U;

  ThreadPool pool;
  std::unique_ptr<Backend> backend = cpu::make_cpu_backend(pool);
  HostMemory probe{int64_t{256} << 20U};
  std::mt19937_64 rng{1};
  std::deque<HostMemory> memory;
  int64_t used_bytes = 0;  // of the last piece

  Lab() { std::fill_n(probe.data(), probe.size_bytes(), std::byte{1}); }

  double bandwidth() { return cpu::measure_read_bandwidth(pool, probe.data(), probe.size_bytes()); }
  double rate() { return cpu::measure_multiply_rate(pool); }

  std::byte* bytes(int64_t count) {
    if (memory.empty() || used_bytes + count > memory.back().size_bytes()) {
      memory.emplace_back(std::max(kPieceBytes, count));
      used_bytes = 0;
    }
    std::byte* result = memory.back().data() + used_bytes;
    used_bytes += (count + 63) / 64 * 64;
    return result;
  }
  Tensor tensor(DType dtype, std::initializer_list<int64_t> shape, float scale = 1.0F) {
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    Tensor t(bytes(std::max<int64_t>(1, count * size_of(dtype))), dtype, shape);
    // Random numbers cost more than the operands of the longest contexts are worth: they repeat.
    constexpr int64_t kPeriod = 1'000'003;
    for (int64_t i = 0; i < std::min(count, kPeriod); ++i) {
      const float x = scale * (static_cast<float>(rng() >> 40U) * 0x1.0p-23F - 1.0F);
      if (dtype == DType::kBF16) {
        t.data<bf16>()[i] = to_bf16(x);
      } else if (dtype == DType::kF8E4M3) {
        t.data<f8e4m3>()[i] = to_e4m3(x);
      } else if (dtype == DType::kF32) {
        t.data<float>()[i] = x;
      }
    }
    auto* raw = static_cast<std::byte*>(t.raw());
    for (int64_t done = kPeriod; done < count; done += kPeriod) {
      std::copy_n(raw, std::min(kPeriod, count - done) * size_of(dtype), raw + done * size_of(dtype));
    }
    return t;
  }
  quant::Weight weight(quant::WeightFormat format, int64_t out, int64_t in) {
    const float bound = 2.0F / std::sqrt(static_cast<float>(in));
    if (format == quant::WeightFormat::kBF16)
      return quant::plain_weight(tensor(DType::kBF16, {out, in}, bound));
    const Tensor values = tensor(DType::kF8E4M3, {out, in}, kMaxE4m3);
    if (format == quant::WeightFormat::kFp8) {
      const Tensor scales = tensor(DType::kF32, {(out + 127) / 128, (in + 127) / 128});
      std::fill_n(scales.data<float>(), scales.numel(), bound / kMaxE4m3);
      return quant::quantized_weight(values, scales);
    }
    const Tensor scales = tensor(DType::kU8, {out, in / 32});
    std::fill_n(scales.data<uint8_t>(), scales.numel(), uint8_t{127 - 13});
    return quant::quantized_weight(values, scales);
  }
  Tensor ids(const std::vector<int32_t>& values) {
    Tensor t = tensor(DType::kI32, {static_cast<int64_t>(values.size())});
    std::copy(values.begin(), values.end(), t.data<int32_t>());
    return t;
  }
};

Lab& lab() {
  static Lab instance;
  return instance;
}

// Times `door(context, args)` over args that `make(copy)` builds, one per copy.
template <typename Op>
void measure(benchmark::State& state, void (*door)(OpContext&, const Op&), const std::function<Op()>& make) {
  Lab& l = lab();
  std::vector<Op> copies = {make()};
  const Cost cost = copies.front().cost();
  const auto wanted =
      static_cast<size_t>(std::clamp<double>(static_cast<double>(kCacheBytes) / cost.bytes, 1, 64));
  while (copies.size() < wanted) copies.push_back(make());

  Arena plan;
  OpContext planning{*l.backend, plan, nullptr};
  door(planning, copies.front());
  Arena arena(plan.peak_bytes());
  OpContext context{*l.backend, arena, nullptr};
  for (const Op& op : copies) door(context, op);

  const double bandwidth_before = l.bandwidth();
  const double rate_before = l.rate();
  size_t next = 0;
  const auto start = std::chrono::steady_clock::now();
  for ([[maybe_unused]] auto _ : state) door(context, copies[next++ % copies.size()]);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                         static_cast<double>(state.iterations());
  const double floor = std::max(cost.bytes / ((bandwidth_before + l.bandwidth()) / 2),
                                cost.flops / ((rate_before + l.rate()) / 2));
  state.counters["GB/s"] = cost.bytes / seconds / 1e9;
  state.counters["GFLOP/s"] = cost.flops / seconds / 1e9;
  state.counters["share"] = floor / seconds;
  copies.clear();
  l.memory.clear();
}

struct ExpertShape {
  int64_t hidden, experts, top_k, intermediate;
};
struct ModelShape {
  int64_t heads, kv_heads, head_dim;
  ExpertShape ffn;
};
constexpr ModelShape kM1Like = {16, 4, 64, {1024, 16, 2, 1536}};
constexpr ModelShape kM1 = {64, 8, 128, {6144, 4, 2, 9216}};  // 4 of the 32 experts, to fit a small machine
// Experts of M2 and M3 at a sixth of their width.
constexpr ExpertShape kM2Experts = {1024, 64, 8, 256};
constexpr ExpertShape kM3Experts = {1024, 32, 4, 512};

// Softmax attention of M2 and M3 at a sixth and a quarter of their heads.
struct AttentionShape {
  int64_t heads, kv_heads, head_dim;
};
constexpr AttentionShape kM2Attention = {8, 2, 128};
constexpr AttentionShape kM3Attention = {16, 4, 128};

void bench_linear(benchmark::State& state, quant::WeightFormat format, int64_t out, int64_t in) {
  measure<Linear>(state, linear, [&state, format, out, in] {
    return Linear{lab().tensor(DType::kF32, {state.range(0), in}), lab().weight(format, out, in),
                  Activation::kNone, lab().tensor(DType::kBF16, {state.range(0), out}), Precision::kBF16};
  });
}

void bench_moe(benchmark::State& state, quant::WeightFormat format, const ExpertShape& s) {
  std::deque<std::vector<MlpWeights>> experts;
  measure<Moe>(state, moe, [&] {
    auto& set = experts.emplace_back();
    for (int64_t e = 0; e < s.experts; ++e) {
      set.push_back({lab().weight(format, s.intermediate, s.hidden),
                     lab().weight(format, s.intermediate, s.hidden),
                     lab().weight(format, s.hidden, s.intermediate)});
    }
    std::vector<int32_t> picks;
    for (int64_t i = 0; i < state.range(0) * s.top_k; ++i)
      picks.push_back(static_cast<int32_t>((i * 7 + i / s.top_k) % s.experts));
    return Moe{lab().tensor(DType::kF32, {state.range(0), s.hidden}),
               lab().ids(picks).reshape({state.range(0), s.top_k}),
               lab().tensor(DType::kF32, {state.range(0), s.top_k}),
               set,
               lab().tensor(DType::kF32, {state.range(0), s.hidden}),
               Precision::kBF16};
  });
}

void bench_norm(benchmark::State& state, const ModelShape& s) {
  measure<ResidualRmsNorm>(state, residual_rms_norm, [&] {
    const Tensor x = lab().tensor(DType::kF32, {state.range(0), s.ffn.hidden});
    return ResidualRmsNorm{x,
                           lab().tensor(DType::kF32, {state.range(0), s.ffn.hidden}),
                           1.0F,
                           0.5F,
                           lab().tensor(DType::kBF16, {s.ffn.hidden}),
                           1e-5F,
                           {},
                           x};
  });
}

void bench_sum_of_squares(benchmark::State& state, const ModelShape& s) {
  measure<SumOfSquares>(state, sum_of_squares, [&] {
    return SumOfSquares{lab().tensor(DType::kBF16, {state.range(0), s.heads * s.head_dim}),
                        lab().tensor(DType::kF32, {state.range(0), 1})};
  });
}

void bench_gated_norm(benchmark::State& state, const ModelShape& s) {
  measure<GatedRmsNorm>(state, gated_rms_norm, [&] {
    const int64_t n = s.heads * s.head_dim;
    const Tensor x = lab().tensor(DType::kBF16, {state.range(0), n});
    return GatedRmsNorm{x, lab().tensor(DType::kBF16, {state.range(0), n}), lab().tensor(DType::kBF16, {n}),
                        1e-6F, x};
  });
}

void bench_embedding(benchmark::State& state, const ModelShape& s) {
  measure<Embedding>(state, embedding, [&] {
    std::vector<int32_t> ids(static_cast<size_t>(state.range(0)));
    for (int32_t& id : ids) id = static_cast<int32_t>(lab().rng() % 4096);
    return Embedding{lab().ids(ids), lab().tensor(DType::kBF16, {4096, s.ffn.hidden}),
                     lab().tensor(DType::kF32, {state.range(0), s.ffn.hidden})};
  });
}

void bench_router(benchmark::State& state, const ModelShape&) {
  measure<RouteSoftmax>(state, route_softmax, [&] {
    return RouteSoftmax{lab().tensor(DType::kF32, {state.range(0), 32}),
                        lab().tensor(DType::kI32, {state.range(0), 2}),
                        lab().tensor(DType::kF32, {state.range(0), 2})};
  });
}

void bench_rope(benchmark::State& state, const ModelShape& s) {
  measure<Rope>(state, rope, [&] {
    std::vector<int32_t> positions(static_cast<size_t>(state.range(0)));
    std::iota(positions.begin(), positions.end(), 0);
    return Rope{lab().tensor(DType::kBF16, {state.range(0), s.heads, s.head_dim}), lab().ids(positions),
                lab().tensor(DType::kF32, {s.head_dim / 4})};
  });
}

// Sequences of `context` tokens, their pages in the order in which they were handed out.
struct PagedContext {
  int64_t sequences, rows, context, page_size;

  int64_t pages() const { return (context + page_size - 1) / page_size; }
  Tensor block_table() const {
    std::vector<int32_t> table(static_cast<size_t>(sequences * pages()));
    std::iota(table.begin(), table.end(), 0);
    return lab().ids(table).reshape({sequences, pages()});
  }
  Tensor query_starts() const {
    std::vector<int32_t> starts;
    for (int64_t b = 0; b <= sequences; ++b) starts.push_back(static_cast<int32_t>(b * rows));
    return lab().ids(starts);
  }
  Tensor seq_lens() const {
    return lab().ids(std::vector<int32_t>(static_cast<size_t>(sequences), static_cast<int32_t>(context)));
  }
};

// Each sequence has `rows` query rows at the end of its context.
void bench_attention(benchmark::State& state, const AttentionShape& s, const PagedContext& c, DType cache) {
  measure<PagedAttention>(state, paged_attention, [&] {
    const int64_t rows = c.sequences * c.rows;
    const int64_t pages = c.sequences * c.pages();
    return PagedAttention{lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim}),
                          lab().tensor(cache, {pages, c.page_size, s.kv_heads, s.head_dim}),
                          lab().tensor(cache, {pages, c.page_size, s.kv_heads, s.head_dim}),
                          c.block_table(),
                          c.query_starts(),
                          c.seq_lens(),
                          0.0884F,
                          lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim})};
  });
}

// Ascending blocks for each row and kv head: those of its neighbours, a quarter of them replaced, the newest
// always among them.
Tensor similar_selection(const AttentionShape& s, const PagedContext& c, int64_t k) {
  Tensor selection = lab().tensor(DType::kI32, {c.sequences * c.rows, s.kv_heads, std::min(k, c.pages())});
  std::vector<int32_t> base;
  for (int64_t row = 0; row < selection.dim(0) * s.kv_heads; ++row) {
    const int64_t token = row / s.kv_heads % c.rows;
    const int64_t position = c.context - c.rows + token;
    const int64_t valid = position / c.page_size + 1;
    const auto wanted = static_cast<size_t>(std::min(selection.dim(2), valid));
    if (row % (16 * s.kv_heads) == 0) base.clear();
    std::vector<int32_t> chosen = {static_cast<int32_t>(valid - 1)};
    const auto add = [&](int32_t block) {
      if (chosen.size() < wanted && block < valid &&
          std::find(chosen.begin(), chosen.end(), block) == chosen.end()) {
        chosen.push_back(block);
      }
    };
    for (const int32_t block : base) {
      if (lab().rng() % 4 != 0) add(block);
    }
    while (chosen.size() < wanted) add(static_cast<int32_t>(lab().rng() % static_cast<uint64_t>(valid)));
    if (base.empty()) base = chosen;
    std::sort(chosen.begin(), chosen.end());
    chosen.resize(static_cast<size_t>(selection.dim(2)), -1);
    std::copy(chosen.begin(), chosen.end(), selection.data<int32_t>() + row * selection.dim(2));
  }
  return selection;
}

void bench_sparse(benchmark::State& state, const AttentionShape& s, const PagedContext& c, DType cache,
                  int64_t k) {
  // Every call has its own selection; caches are as many as the last-level cache cannot hold.
  const int64_t pages = c.sequences * c.pages();
  const int64_t cache_bytes = pages * c.page_size * s.kv_heads * s.head_dim * size_of(cache);
  const auto wanted = static_cast<size_t>(kCacheBytes / (2 * cache_bytes) + 1);
  std::vector<std::pair<Tensor, Tensor>> caches;
  size_t calls = 0;
  measure<SparsePagedAttention>(state, sparse_paged_attention, [&] {
    const int64_t rows = c.sequences * c.rows;
    const auto pages_of = [&] { return lab().tensor(cache, {pages, c.page_size, s.kv_heads, s.head_dim}); };
    if (caches.size() < wanted) caches.emplace_back(pages_of(), pages_of());
    const auto& [k_cache, v_cache] = caches[calls++ % caches.size()];
    return SparsePagedAttention{lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim}),
                                k_cache,
                                v_cache,
                                c.block_table(),
                                c.query_starts(),
                                c.seq_lens(),
                                similar_selection(s, c, k),
                                0.0884F,
                                lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim})};
  });
}

void bench_index_scores(benchmark::State& state, const AttentionShape& s, const PagedContext& c,
                        DType cache) {
  measure<IndexBlockScores>(state, index_block_scores, [&] {
    const int64_t rows = c.sequences * c.rows;
    return IndexBlockScores{lab().tensor(cache, {rows, s.kv_heads, s.head_dim}),
                            lab().tensor(cache, {c.sequences * c.pages(), c.page_size, s.head_dim}),
                            c.block_table(),
                            c.query_starts(),
                            c.seq_lens(),
                            lab().tensor(DType::kF32, {rows, s.kv_heads, c.pages()})};
  });
}

void bench_select(benchmark::State& state, const AttentionShape& s, const PagedContext& c) {
  measure<SelectBlocks>(state, select_blocks, [&] {
    const int64_t rows = c.sequences * c.rows;
    return SelectBlocks{lab().tensor(DType::kF32, {rows, s.kv_heads, c.pages()}),
                        c.page_size,
                        c.query_starts(),
                        c.seq_lens(),
                        0,
                        1,
                        lab().tensor(DType::kI32, {rows, s.kv_heads, 16})};
  });
}

void bench_kv_write(benchmark::State& state, const ModelShape& s) {
  measure<PagedKvWrite>(state, paged_kv_write, [&] {
    const int64_t rows = state.range(0);
    Tensor slots = lab().tensor(DType::kI64, {rows});
    std::iota(slots.data<int64_t>(), slots.data<int64_t>() + rows, 0);
    const Tensor k = lab().tensor(DType::kBF16, {rows, s.kv_heads, s.head_dim});
    const int64_t pages = (rows + 15) / 16;
    return PagedKvWrite{k, k, slots, lab().tensor(DType::kBF16, {pages, 16, s.kv_heads, s.head_dim}),
                        lab().tensor(DType::kBF16, {pages, 16, s.kv_heads, s.head_dim})};
  });
}

// Index heads as many as kv heads; none when `has_indexer` is false.
void bench_qk_norm(benchmark::State& state, const AttentionShape& s, bool has_indexer) {
  measure<QkNormRopeKvWrite>(state, qk_norm_rope_kv_write, [&] {
    const int64_t rows = state.range(0);
    const int64_t pages = (rows + 127) / 128;
    Tensor slots = lab().tensor(DType::kI64, {rows});
    std::iota(slots.data<int64_t>(), slots.data<int64_t>() + rows, 0);
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    std::iota(positions.begin(), positions.end(), 0);
    const int64_t index_width = has_indexer ? (s.kv_heads + 1) * s.head_dim : 0;
    const auto cache = [&] { return lab().tensor(DType::kBF16, {pages, 128, s.kv_heads, s.head_dim}); };
    const auto norm = [&] { return lab().tensor(DType::kBF16, {s.head_dim}); };
    return QkNormRopeKvWrite{
        lab().tensor(DType::kBF16, {rows, (s.heads + 2 * s.kv_heads) * s.head_dim + index_width}),
        norm(),
        norm(),
        has_indexer ? norm() : Tensor(),
        has_indexer ? norm() : Tensor(),
        1.0F,
        1e-6F,
        lab().ids(positions),
        lab().tensor(DType::kF32, {s.head_dim / 4}),
        slots,
        lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim}),
        has_indexer ? lab().tensor(DType::kBF16, {rows, s.kv_heads, s.head_dim}) : Tensor(),
        cache(),
        cache(),
        has_indexer ? lab().tensor(DType::kBF16, {pages, 128, s.head_dim}) : Tensor()};
  });
}

void bench_lightning_prefill(benchmark::State& state, const ModelShape& s) {
  measure<LightningPrefill>(state, lightning_prefill, [&] {
    const int64_t rows = state.range(0);
    const auto heads = [&] { return lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim}); };
    Tensor decay = lab().tensor(DType::kF32, {s.heads});
    std::fill_n(decay.data<float>(), s.heads, 0.1F);
    return LightningPrefill{heads(),
                            heads(),
                            heads(),
                            decay,
                            lab().tensor(DType::kF32, {1, s.heads, s.head_dim, s.head_dim}),
                            lab().ids({-1}),
                            lab().ids({0}),
                            lab().ids({0, static_cast<int32_t>(rows)}),
                            heads()};
  });
}

void bench_lightning_decode(benchmark::State& state, const ModelShape& s) {
  measure<LightningDecode>(state, lightning_decode, [&] {
    const int64_t rows = state.range(0);
    const auto heads = [&] { return lab().tensor(DType::kBF16, {rows, s.heads, s.head_dim}); };
    Tensor decay = lab().tensor(DType::kF32, {s.heads});
    std::fill_n(decay.data<float>(), s.heads, 0.1F);
    std::vector<int32_t> slots(static_cast<size_t>(rows));
    std::iota(slots.begin(), slots.end(), 0);
    return LightningDecode{heads(),
                           heads(),
                           heads(),
                           decay,
                           lab().tensor(DType::kF32, {rows, s.heads, s.head_dim, s.head_dim}),
                           lab().ids(slots),
                           lab().ids(slots),
                           heads()};
  });
}

void register_all(const std::string& model, const ModelShape& s) {
  const auto add = [&](const std::string& op, auto function) {
    return benchmark::RegisterBenchmark((model + "/" + op).c_str(), function)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  const int64_t qkv = 3 * s.heads * s.head_dim;
  add("linear_qkv",
      [=](benchmark::State& st) { bench_linear(st, quant::WeightFormat::kBF16, qkv, s.ffn.hidden); })
      ->Arg(1)
      ->Arg(8)
      ->Arg(2048);
  add("moe", [=](benchmark::State& st) { bench_moe(st, quant::WeightFormat::kBF16, s.ffn); })
      ->Arg(1)
      ->Arg(8)
      ->Arg(2048);
  add("residual_rms_norm", [=](benchmark::State& st) { bench_norm(st, s); })->Arg(1)->Arg(2048);
  add("sum_of_squares", [=](benchmark::State& st) { bench_sum_of_squares(st, s); })->Arg(1)->Arg(2048);
  add("gated_rms_norm", [=](benchmark::State& st) { bench_gated_norm(st, s); })->Arg(1)->Arg(2048);
  add("embedding", [=](benchmark::State& st) { bench_embedding(st, s); })->Arg(2048);
  add("route_softmax", [=](benchmark::State& st) { bench_router(st, s); })->Arg(2048);
  add("rope", [=](benchmark::State& st) { bench_rope(st, s); })->Arg(2048);
  add("paged_kv_write", [=](benchmark::State& st) { bench_kv_write(st, s); })->Arg(2048);
  add("paged_attention",
      [=](benchmark::State& st) {
        bench_attention(st, {s.heads, s.kv_heads, s.head_dim}, {1, st.range(0), st.range(1), 16},
                        DType::kBF16);
      })
      ->Args({1, 2048})
      ->Args({1, 32768})
      ->Args({2048, 2048});
  add("lightning_prefill", [=](benchmark::State& st) { bench_lightning_prefill(st, s); })->Arg(2048);
  add("lightning_decode", [=](benchmark::State& st) { bench_lightning_decode(st, s); })->Arg(1)->Arg(32);
}

// Linear layers and experts in every format of a checkpoint; the fused projection of attention is as wide as
// 8 + 2 * 2 heads of 128.
void register_formats(const std::string& model, const ExpertShape& s) {
  for (const auto format :
       {quant::WeightFormat::kBF16, quant::WeightFormat::kFp8, quant::WeightFormat::kMxfp8}) {
    const auto add = [&](const std::string& op, auto function) {
      const std::string name = fmt::format("{}/{}_{}", model, op, quant::name(format));
      benchmark::RegisterBenchmark(name.c_str(), function)
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond)
          ->Arg(1)
          ->Arg(8)
          ->Arg(2048);
    };
    add("linear", [=](benchmark::State& st) { bench_linear(st, format, 1536, s.hidden); });
    add("moe", [=](benchmark::State& st) { bench_moe(st, format, s); });
  }
}

void register_attention(const std::string& model, const AttentionShape& s, bool is_sparse) {
  const auto add = [&](const std::string& op, auto function) {
    return benchmark::RegisterBenchmark((model + "/" + op).c_str(), function)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  add("qk_norm_rope_kv_write", [=](benchmark::State& st) { bench_qk_norm(st, s, is_sparse); })
      ->Arg(1)
      ->Arg(2048);
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    const std::string type = cache == DType::kBF16 ? "_bf16" : "_fp8";
    add("paged_attention" + type,
        [=](benchmark::State& st) {
          bench_attention(st, s, {st.range(0), st.range(1), st.range(2), 128}, cache);
        })
        ->ArgNames({"sequences", "rows", "context"})
        ->ArgsProduct({{1, 8}, {1}, {4096, 8192, 32768}})
        ->Args({1, 2048, 2048});
    if (!is_sparse) continue;
    add("sparse_paged_attention" + type,
        [=](benchmark::State& st) {
          bench_sparse(st, s, {1, st.range(0), st.range(1), 128}, cache, st.range(2));
        })
        ->ArgNames({"rows", "context", "blocks"})
        ->ArgsProduct({{1}, {4096, 16384, 65536, 262144}, {16}})
        ->ArgsProduct({{2048}, {2048, 16384}, {4, 16}});
    add("index_block_scores" + type,
        [=](benchmark::State& st) {
          bench_index_scores(st, s, {1, st.range(0), st.range(1), 128}, cache);
        })
        ->ArgNames({"rows", "context"})
        ->ArgsProduct({{1}, {4096, 8192, 16384, 65536, 262144}})
        ->Args({2048, 16384});
  }
  if (!is_sparse) return;
  add("select_blocks",
      [=](benchmark::State& st) {
        bench_select(st, s, {1, st.range(0), st.range(1), 128});
      })
      ->ArgNames({"rows", "context"})
      ->Args({1, 262144})
      ->Args({2048, 16384});
}

}  // namespace
}  // namespace minimax::ops

int main(int argc, char** argv) {
  minimax::ops::register_all("m1_like", minimax::ops::kM1Like);
  minimax::ops::register_all("m1", minimax::ops::kM1);
  minimax::ops::register_formats("m2_like", minimax::ops::kM2Experts);
  minimax::ops::register_formats("m3_like", minimax::ops::kM3Experts);
  minimax::ops::register_attention("m2_like", minimax::ops::kM2Attention, false);
  minimax::ops::register_attention("m3_like", minimax::ops::kM3Attention, true);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
