// Speed of MiniMax-M3's sparse attention at its real shapes (64 query heads, 4 KV heads and index heads, 128
// dimensions, blocks of 128 tokens, 16 chosen), against the bandwidth of a copy in the same run.
//
//   sparse_bench [check] [scores] [select] [decode] [prefill]     which parts; all of them if none is named
//   sparse_bench profile                                          one prompt, for a profiler
//
// Calls are captured in a CUDA graph, which rotates through pages far larger than the cache; figures are
// medians over replays. `check` compares with the plain kernels.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/kernels.h"
#include "bench/cuda/bench.cuh"

namespace {

using namespace minimax::cuda;   // NOLINT: a bench of that room's kernels
using namespace minimax::bench;  // NOLINT

constexpr int64_t kHeads = 64;
constexpr int64_t kKvHeads = 4;
constexpr int64_t kDim = 128;
constexpr int64_t kBlock = 128;
constexpr int64_t kChosen = 16;

int multiprocessors() {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

bool is_hopper() {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major == 9;
}

int64_t bytes_of(Scalar scalar) { return scalar == Scalar::kF32 ? 4 : scalar == Scalar::kBF16 ? 2 : 1; }
const char* name_of(Scalar scalar) { return scalar == Scalar::kE4m3 ? "e4m3" : "bf16"; }

__global__ void fill_normal(void* data, Scalar scalar, int64_t count, uint64_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float x = normal_at(seed * 0x100000000000ULL + static_cast<uint64_t>(i));
    if (scalar == Scalar::kF32) static_cast<float*>(data)[i] = x;
    if (scalar == Scalar::kBF16) static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(x);
    if (scalar == Scalar::kE4m3) static_cast<__nv_fp8_e4m3*>(data)[i] = __nv_fp8_e4m3(x);
  }
}

Buffer<uint8_t> random_numbers(Scalar scalar, int64_t count, uint64_t seed) {
  Buffer<uint8_t> buffer = allocate<uint8_t>(count * bytes_of(scalar));
  fill_normal<<<4096, 256>>>(buffer.get(), scalar, count, seed);
  check(cudaGetLastError());
  return buffer;
}

// A batch of sequences over pages in scattered order.
struct Batch {
  Buffer<int32_t> table, starts, lens;
  Ragged ragged;

  Batch(const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths, int64_t width, int64_t pool,
        int64_t first_page) {
    std::vector<int32_t> pages, row_starts = {0}, seq_lens;
    int64_t next = first_page;
    for (std::size_t b = 0; b < rows.size(); ++b) {
      row_starts.push_back(row_starts.back() + static_cast<int32_t>(rows[b]));
      seq_lens.push_back(static_cast<int32_t>(lengths[b]));
      for (int64_t i = 0; i < width; ++i) {
        const bool is_used = i * kBlock < lengths[b];
        pages.push_back(is_used ? static_cast<int32_t>(next++ * 40503 % pool) : -1000000);
      }
    }
    table = upload(pages);
    starts = upload(row_starts);
    lens = upload(seq_lens);
    ragged = {starts.get(),
              lens.get(),
              table.get(),
              width,
              width,
              static_cast<int64_t>(rows.size()),
              int64_t{row_starts.back()}};
  }
};

Heads heads_of(void* data, int64_t tokens, int64_t heads, int64_t dim, Scalar scalar) {
  return {data, tokens, heads, dim, heads * dim, dim, scalar};
}

// --- comparison with the plain kernels

double relative_error(const std::vector<float>& x, const std::vector<float>& expected) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isinf(expected[i])) {
      if (x[i] != expected[i]) return INFINITY;
      continue;
    }
    error += (x[i] - expected[i]) * (x[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

std::vector<float> floats(const std::vector<__nv_bfloat16>& x) {
  std::vector<float> y;
  for (const __nv_bfloat16 v : x) y.push_back(__bfloat162float(v));
  return y;
}

void check_one(const char* what, const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths,
               int64_t width, Scalar q_scalar, Scalar scalar) {
  const int64_t pool = 4096;
  const Batch batch(rows, lengths, width, pool, 0);
  const int64_t padding = 2, tokens = batch.ragged.tokens + padding;
  Ragged ragged = batch.ragged;
  ragged.tokens = tokens;
  const Buffer<uint8_t> index_q = random_numbers(q_scalar, tokens * kKvHeads * kDim, 2);
  const Buffer<uint8_t> keys = random_numbers(scalar, pool * kBlock * kDim, 3);
  const Buffer<float> scores[2] = {allocate<float>(tokens * kKvHeads * width),
                                   allocate<float>(tokens * kKvHeads * width)};
  const Buffer<int32_t> selection[2] = {allocate<int32_t>(tokens * kKvHeads * kChosen),
                                        allocate<int32_t>(tokens * kKvHeads * kChosen)};
  IndexerArgs a;
  a.index_q = heads_of(index_q.get(), tokens, kKvHeads, kDim, q_scalar);
  a.batch = ragged;
  a.index_cache = keys.get();
  a.index_scalar = scalar;
  a.block_size = kBlock;
  a.top_k = kChosen;
  a.local_blocks = 1;
  for (int i = 0; i < 2; ++i) {
    check(cudaMemset(scores[i].get(), 0x7f, static_cast<std::size_t>(tokens * kKvHeads * width) * 4));
    a.scores = heads_of(scores[i].get(), tokens, kKvHeads, width, Scalar::kF32);
    i == 0 ? launch_index_block_scores(a, nullptr) : launch_block_scores(a, multiprocessors(), nullptr);
    check(cudaDeviceSynchronize());
  }
  const double score_error = relative_error(download(scores[1].get(), tokens * kKvHeads * width),
                                            download(scores[0].get(), tokens * kKvHeads * width));
  double wide_error = 0;
  if (is_hopper()) {
    check(cudaMemset(scores[1].get(), 0x7f, static_cast<std::size_t>(tokens * kKvHeads * width) * 4));
    launch_block_scores_sm90(a, multiprocessors(), nullptr);
    check(cudaDeviceSynchronize());
    wide_error = relative_error(download(scores[1].get(), tokens * kKvHeads * width),
                                download(scores[0].get(), tokens * kKvHeads * width));
  }
  a.scores.data = scores[1].get();
  for (int i = 0; i < 2; ++i) {
    a.selection = selection[i].get();
    i == 0 ? launch_select_blocks(a, nullptr) : launch_choose_blocks(a, nullptr);
    check(cudaDeviceSynchronize());
  }
  const auto chosen = download(selection[1].get(), tokens * kKvHeads * kChosen);
  const auto expected = download(selection[0].get(), tokens * kKvHeads * kChosen);
  int64_t different = 0;
  for (std::size_t i = 0; i < chosen.size(); ++i) different += chosen[i] != expected[i] ? 1 : 0;

  const Buffer<uint8_t> q = random_numbers(Scalar::kBF16, tokens * kHeads * kDim, 4);
  const Buffer<uint8_t> k = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 5);
  const Buffer<uint8_t> v = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 6);
  const Buffer<__nv_bfloat16> out[2] = {allocate<__nv_bfloat16>(tokens * kHeads * kDim),
                                        allocate<__nv_bfloat16>(tokens * kHeads * kDim)};
  AttentionArgs s;
  s.q = heads_of(q.get(), tokens, kHeads, kDim, Scalar::kBF16);
  s.cache = {k.get(), v.get(), kBlock, kKvHeads, kDim, scalar};
  s.batch = ragged;
  s.scale = 1 / std::sqrt(static_cast<float>(kDim));
  s.selection = selection[0].get();
  s.selected = kChosen;
  std::vector<float> results[2];
  double errors[3] = {};
  s.out = heads_of(out[0].get(), tokens, kHeads, kDim, Scalar::kBF16);
  launch_attention_any(s, nullptr);
  check(cudaDeviceSynchronize());
  results[0] = floats(download(out[0].get(), tokens * kHeads * kDim));
  s.out.data = out[1].get();
  for (int i = 0; i < 2; ++i) {
    s.splits =
        i == 0 ? 1
               : std::max<int64_t>(2, sparse_attention_splits(tokens, kKvHeads, kChosen, multiprocessors()));
    const Buffer<uint8_t> partial = allocate<uint8_t>(sparse_partial_bytes(tokens, kHeads, s.splits));
    s.partial = reinterpret_cast<float*>(partial.get());
    check(cudaMemset(out[1].get(), 0x7f, static_cast<std::size_t>(tokens * kHeads * kDim) * 2));
    launch_sparse_attention(s, nullptr);
    check(cudaDeviceSynchronize());
    errors[i] = relative_error(floats(download(out[1].get(), tokens * kHeads * kDim)), results[0]);
  }
  if (is_hopper() && can_sparse_attention_sm90(s)) {
    const Buffer<uint8_t> partial = allocate<uint8_t>(sparse_attention_sm90_bytes(s));
    s.partial = reinterpret_cast<float*>(partial.get());
    check(cudaMemset(out[1].get(), 0x7f, static_cast<std::size_t>(tokens * kHeads * kDim) * 2));
    launch_sparse_attention_sm90(s, multiprocessors(), nullptr);
    check(cudaDeviceSynchronize());
    errors[2] = relative_error(floats(download(out[1].get(), tokens * kHeads * kDim)), results[0]);
  }
  std::printf(
      "%-14s q %s cache %s: scores %.1e %.1e, %lld other choices, attention %.1e, in %lld parts %.1e, by "
      "blocks %.1e\n",
      what, name_of(q_scalar), name_of(scalar), score_error, wide_error, static_cast<long long>(different),
      errors[0], static_cast<long long>(s.splits), errors[1], errors[2]);
  std::fflush(stdout);
}

void check_all() {
  const std::pair<Scalar, Scalar> types[] = {{Scalar::kBF16, Scalar::kBF16},
                                             {Scalar::kBF16, Scalar::kE4m3},
                                             {Scalar::kE4m3, Scalar::kE4m3},
                                             {Scalar::kE4m3, Scalar::kBF16}};
  for (const auto& [q, cache] : types) {
    check_one("decode", {1, 1, 1, 0, 1}, {5000, 130, 1, 0, 70000}, 700, q, cache);
    check_one("one row", {1}, {4097}, 33, q, cache);
    check_one("prompts", {70, 333, 1}, {70, 9000, 2500}, 72, q, cache);
    check_one("a prompt", {5000}, {9001}, 80, q, cache);
  }
}

// --- speed

void bench_scores(double bandwidth) {
  const int64_t pool = int64_t{1} << 18;
  std::printf("\nscores of a row for each sequence: us, share of copy bandwidth\n%8s %9s", "cache",
              "context");
  const int64_t batches[] = {1, 2, 4, 8, 16, 32, 64};
  for (const int64_t batch : batches) std::printf("   batch %4lld   ", static_cast<long long>(batch));
  std::printf("\n");
  for (const Scalar scalar : {Scalar::kBF16, Scalar::kE4m3}) {
    const Buffer<uint8_t> keys = random_numbers(scalar, pool * kBlock * kDim, 3);
    const auto run = [&](const std::vector<int64_t>& lengths, int64_t width) {
      const auto sequences = static_cast<int64_t>(lengths.size());
      double tokens = 0;
      for (const int64_t length : lengths) tokens += static_cast<double>(length);
      const double bytes = tokens * kDim * static_cast<double>(bytes_of(scalar));
      const int sets = static_cast<int>(std::clamp(3e8 / bytes, 1.0, 16.0));
      std::vector<std::unique_ptr<Batch>> batches_of_set;
      const std::vector<int64_t> rows(lengths.size(), 1);
      for (int i = 0; i < sets; ++i) {
        batches_of_set.push_back(std::make_unique<Batch>(
            rows, lengths, width, pool, i * (static_cast<int64_t>(tokens) / kBlock + sequences)));
      }
      const Buffer<uint8_t> index_q = random_numbers(scalar, sequences * kKvHeads * kDim, 2);
      const Buffer<float> scores = allocate<float>(sequences * kKvHeads * width);
      IndexerArgs a;
      a.index_q = heads_of(index_q.get(), sequences, kKvHeads, kDim, scalar);
      a.index_cache = keys.get();
      a.index_scalar = scalar;
      a.block_size = kBlock;
      a.scores = heads_of(scores.get(), sequences, kKvHeads, width, Scalar::kF32);
      const int launches = bytes > 1e9 ? 4 : 32;
      const Timing t = time_graph(launches, 7, [&](int i, cudaStream_t stream) {
        a.batch = batches_of_set[static_cast<std::size_t>(i % sets)]->ragged;
        launch_block_scores(a, multiprocessors(), stream);
      });
      std::printf(" %9.2f %3.0f%% ", t.median_us, 100 * bytes / bandwidth / (t.median_us * 1e-6));
    };
    for (const int64_t context : {1024, 4096, 16384, 65536, 131072, 524288}) {
      std::printf("%8s %9lld", name_of(scalar), static_cast<long long>(context));
      for (const int64_t batch : batches)
        run(std::vector<int64_t>(static_cast<std::size_t>(batch), context), (context + kBlock - 1) / kBlock);
      std::printf("\n");
      std::fflush(stdout);
    }
    std::printf("%8s %9s", name_of(scalar), "8k of 512k");
    for (const int64_t batch : batches)
      run(std::vector<int64_t>(static_cast<std::size_t>(batch), 8192), 4096);
    std::printf("\n%8s %9s", name_of(scalar), "ragged");
    for (const int64_t batch : batches) {
      std::vector<int64_t> lengths;
      for (int64_t b = 0; b < batch; ++b)
        lengths.push_back(b % 8 == 0 ? 262144 : 1000 + static_cast<int64_t>(mixed(b) % 30000));
      run(lengths, 4096);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

void bench_select() {
  std::printf("\nchoice of 16 blocks: us\n%10s %8s %10s\n", "rows", "blocks", "us");
  struct Size {
    int64_t tokens, context;
  };
  for (const Size& size :
       {Size{1, 4096}, {1, 65536}, {1, 524288}, {64, 65536}, {64, 524288}, {64, 1048576}}) {
    const int64_t width = (size.context + kBlock - 1) / kBlock;
    const Batch batch(std::vector<int64_t>(static_cast<std::size_t>(size.tokens), 1),
                      std::vector<int64_t>(static_cast<std::size_t>(size.tokens), size.context), width, 4096,
                      0);
    const Buffer<uint8_t> scores = random_numbers(Scalar::kF32, size.tokens * kKvHeads * width, 7);
    const Buffer<int32_t> selection = allocate<int32_t>(size.tokens * kKvHeads * kChosen);
    IndexerArgs a;
    a.batch = batch.ragged;
    a.block_size = kBlock;
    a.scores = heads_of(scores.get(), size.tokens, kKvHeads, width, Scalar::kF32);
    a.selection = selection.get();
    a.top_k = kChosen;
    a.local_blocks = 1;
    const Timing t = time_graph(32, 7, [&](int, cudaStream_t stream) { launch_choose_blocks(a, stream); });
    std::printf("%10lld %8lld %10.2f\n", static_cast<long long>(size.tokens * kKvHeads),
                static_cast<long long>(width), t.median_us);
  }
  for (const Size& size : {Size{65536, 65536}, {8192, 524288}}) {
    const int64_t width = (size.context + kBlock - 1) / kBlock;
    const Batch batch({size.tokens}, {size.context}, width, 4096, 0);
    const Buffer<uint8_t> scores = random_numbers(Scalar::kF32, size.tokens * kKvHeads * width, 7);
    const Buffer<int32_t> selection = allocate<int32_t>(size.tokens * kKvHeads * kChosen);
    IndexerArgs a;
    a.batch = batch.ragged;
    a.block_size = kBlock;
    a.scores = heads_of(scores.get(), size.tokens, kKvHeads, width, Scalar::kF32);
    a.selection = selection.get();
    a.top_k = kChosen;
    a.local_blocks = 1;
    const Timing t = time_graph(2, 5, [&](int, cudaStream_t stream) { launch_choose_blocks(a, stream); });
    std::printf("%10lld %8lld %10.2f (a prompt)\n", static_cast<long long>(size.tokens * kKvHeads),
                static_cast<long long>(width), t.median_us);
  }
  std::fflush(stdout);
}

// Blocks chosen of `blocks`, ascending, by the place of row and head alone.
std::vector<int32_t> random_selection(int64_t rows, int64_t blocks) {
  std::vector<int32_t> selection;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t> all;
    for (uint64_t x = mixed(static_cast<uint64_t>(r));
         static_cast<int64_t>(all.size()) < std::min(kChosen, blocks); x = mixed(x)) {
      const auto block = static_cast<int32_t>(x % static_cast<uint64_t>(blocks));
      if (std::find(all.begin(), all.end(), block) == all.end()) all.push_back(block);
    }
    std::sort(all.begin(), all.end());
    all.resize(kChosen, -1);
    selection.insert(selection.end(), all.begin(), all.end());
  }
  return selection;
}

void bench_decode(double bandwidth) {
  const int64_t pool = 8192;
  std::printf("\nattention of a row for each sequence to 16 blocks: us, share of copy bandwidth\n%8s",
              "cache");
  const int64_t batches[] = {1, 2, 4, 8, 16, 32, 64, 128};
  for (const int64_t batch : batches) std::printf("   batch %4lld   ", static_cast<long long>(batch));
  std::printf("\n");
  for (const Scalar scalar : {Scalar::kBF16, Scalar::kE4m3}) {
    const Buffer<uint8_t> k = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 5);
    const Buffer<uint8_t> v = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 6);
    std::printf("%8s", name_of(scalar));
    for (const int64_t rows : batches) {
      const int64_t width = 512;
      const double bytes =
          static_cast<double>(rows * kKvHeads * kChosen * kBlock * 2 * kDim * bytes_of(scalar));
      const int sets = static_cast<int>(std::clamp(3e8 / bytes, 1.0, 16.0));
      std::vector<std::unique_ptr<Batch>> sets_of_pages;
      for (int i = 0; i < sets; ++i) {
        sets_of_pages.push_back(
            std::make_unique<Batch>(std::vector<int64_t>(static_cast<std::size_t>(rows), 1),
                                    std::vector<int64_t>(static_cast<std::size_t>(rows), width * kBlock),
                                    width, pool, i * width * rows));
      }
      const Buffer<int32_t> selection = upload(random_selection(rows * kKvHeads, width));
      const Buffer<uint8_t> q = random_numbers(Scalar::kBF16, rows * kHeads * kDim, 4);
      const Buffer<__nv_bfloat16> out = allocate<__nv_bfloat16>(rows * kHeads * kDim);
      AttentionArgs s;
      s.q = heads_of(q.get(), rows, kHeads, kDim, Scalar::kBF16);
      s.cache = {k.get(), v.get(), kBlock, kKvHeads, kDim, scalar};
      s.scale = 1 / std::sqrt(static_cast<float>(kDim));
      s.out = heads_of(out.get(), rows, kHeads, kDim, Scalar::kBF16);
      s.selection = selection.get();
      s.selected = kChosen;
      s.splits = sparse_attention_splits(rows, kKvHeads, kChosen, multiprocessors());
      const Buffer<uint8_t> partial = allocate<uint8_t>(sparse_partial_bytes(rows, kHeads, s.splits));
      s.partial = reinterpret_cast<float*>(partial.get());
      const Timing t = time_graph(32, 7, [&](int i, cudaStream_t stream) {
        s.batch = sets_of_pages[static_cast<std::size_t>(i % sets)]->ragged;
        launch_sparse_attention(s, stream);
      });
      std::printf(" %9.2f %3.0f%% ", t.median_us, 100 * bytes / bandwidth / (t.median_us * 1e-6));
      std::fflush(stdout);
    }
    std::printf("\n");
  }
}

// A selection in which neighbours agree: the newest eight blocks, and others that change every 512 rows.
std::vector<int32_t> local_selection(int64_t rows, int64_t context) {
  std::vector<int32_t> selection;
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t valid = (context - rows + t) / kBlock + 1;
    for (int64_t g = 0; g < kKvHeads; ++g) {
      std::vector<int32_t> all;
      for (int64_t i = 0; i < std::min<int64_t>(8, valid); ++i)
        all.push_back(static_cast<int32_t>(valid - 1 - i));
      for (uint64_t x = mixed(static_cast<uint64_t>(t / 512 * kKvHeads + g));
           static_cast<int64_t>(all.size()) < std::min(kChosen, valid); x = mixed(x)) {
        const auto block = static_cast<int32_t>(x % static_cast<uint64_t>(valid));
        if (std::find(all.begin(), all.end(), block) == all.end()) all.push_back(block);
      }
      std::sort(all.begin(), all.end());
      all.resize(kChosen, -1);
      selection.insert(selection.end(), all.begin(), all.end());
    }
  }
  return selection;
}

void bench_prompt(int64_t rows, int64_t context, Scalar scalar) {
  const int64_t width = (context + kBlock - 1) / kBlock;
  const Batch batch({rows}, {context}, width, width | 1, 0);
  const int64_t pool = width | 1;
  const Buffer<uint8_t> index_q = random_numbers(scalar, rows * kKvHeads * kDim, 2);
  const Buffer<uint8_t> keys = random_numbers(scalar, pool * kBlock * kDim, 3);
  const Buffer<float> scores = allocate<float>(rows * kKvHeads * width);
  const Buffer<int32_t> selection = allocate<int32_t>(rows * kKvHeads * kChosen);
  const Buffer<int32_t> local = upload(local_selection(rows, context));
  const Buffer<uint8_t> q = random_numbers(Scalar::kBF16, rows * kHeads * kDim, 4);
  const Buffer<uint8_t> k = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 5);
  const Buffer<uint8_t> v = random_numbers(scalar, pool * kBlock * kKvHeads * kDim, 6);
  const Buffer<__nv_bfloat16> out = allocate<__nv_bfloat16>(rows * kHeads * kDim);
  IndexerArgs a;
  a.index_q = heads_of(index_q.get(), rows, kKvHeads, kDim, scalar);
  a.batch = batch.ragged;
  a.index_cache = keys.get();
  a.index_scalar = scalar;
  a.block_size = kBlock;
  a.scores = heads_of(scores.get(), rows, kKvHeads, width, Scalar::kF32);
  a.selection = selection.get();
  a.top_k = kChosen;
  a.local_blocks = 1;
  AttentionArgs s;
  s.q = heads_of(q.get(), rows, kHeads, kDim, Scalar::kBF16);
  s.cache = {k.get(), v.get(), kBlock, kKvHeads, kDim, scalar};
  s.batch = batch.ragged;
  s.scale = 1 / std::sqrt(static_cast<float>(kDim));
  s.out = heads_of(out.get(), rows, kHeads, kDim, Scalar::kBF16);
  s.selected = kChosen;
  const bool by_blocks = is_hopper() && can_sparse_attention_sm90(s);
  const int64_t bytes = by_blocks ? sparse_attention_sm90_bytes(s) : 0;
  const Buffer<uint8_t> partial = allocate<uint8_t>(std::max(
      bytes, sparse_partial_bytes(rows, kHeads,
                                  sparse_attention_splits(rows, kKvHeads, kChosen, multiprocessors()))));
  s.partial = reinterpret_cast<float*>(partial.get());
  const auto score = [&](cudaStream_t stream) {
    is_hopper() ? launch_block_scores_sm90(a, multiprocessors(), stream)
                : launch_block_scores(a, multiprocessors(), stream);
  };
  const auto attend = [&](const int32_t* chosen, bool blocks, cudaStream_t stream) {
    s.selection = chosen;
    if (blocks) return launch_sparse_attention_sm90(s, multiprocessors(), stream);
    s.splits = sparse_attention_splits(rows, kKvHeads, kChosen, multiprocessors());
    launch_sparse_attention(s, stream);
  };
  const int calls = rows * context > 100000000 ? 1 : 4;
  const auto time = [&](const std::function<void(cudaStream_t)>& call) {
    return time_graph(calls, 3, [&](int, cudaStream_t stream) { call(stream); }).median_us / 1e3;
  };
  const double score_ms = time(score);
  const double select_ms = time([&](cudaStream_t stream) { launch_choose_blocks(a, stream); });
  const double random_ms =
      by_blocks ? time([&](cudaStream_t stream) { attend(selection.get(), true, stream); }) : 0;
  const double local_ms =
      by_blocks ? time([&](cudaStream_t stream) { attend(local.get(), true, stream); }) : 0;
  const double row_ms = time([&](cudaStream_t stream) { attend(selection.get(), false, stream); });
  const double all_ms = time([&](cudaStream_t stream) {
    score(stream);
    launch_choose_blocks(a, stream);
    attend(selection.get(), by_blocks, stream);
  });
  const double score_flop =
      2.0 * kDim * kKvHeads * static_cast<double>(rows) * (static_cast<double>(context) - rows / 2.0);
  std::printf("%7lld %9lld %6s %9.3f (%3.0f) %8.3f %9.3f %9.3f %9.3f %9.3f  %6.0f MB\n",
              static_cast<long long>(rows), static_cast<long long>(context), name_of(scalar), score_ms,
              score_flop / score_ms / 1e9, select_ms, random_ms, local_ms, row_ms, all_ms,
              static_cast<double>(bytes) / 1e6);
  std::fflush(stdout);
}

void bench_prefill() {
  std::printf(
      "\nprompts, ms: scores (TFLOP/s), choice, attention to the chosen, to a local choice, row by row, all\n"
      "%7s %9s %6s\n",
      "rows", "context", "cache");
  struct Size {
    int64_t rows, context;
  };
  for (const Size& size : {Size{65536, 65536}, {8192, 8192}, {8192, 65536}, {8192, 524288}, {2048, 65536}}) {
    for (const Scalar scalar : {Scalar::kBF16, Scalar::kE4m3}) bench_prompt(size.rows, size.context, scalar);
  }
  for (const int64_t rows : {64, 128, 256, 512, 1024}) bench_prompt(rows, 65536, Scalar::kBF16);
}

}  // namespace

int main(int argc, char** argv) {
  const auto wants = [&](const char* part) {
    if (argc < 2) return true;
    return std::any_of(argv + 1, argv + argc, [&](const char* arg) { return std::strcmp(arg, part) == 0; });
  };
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  if (wants("check")) check_all();
  const double bandwidth = argc == 2 && wants("profile") ? 1 : copy_bandwidth();
  std::fflush(stdout);
  if (wants("scores")) bench_scores(bandwidth);
  if (wants("select")) bench_select();
  if (wants("decode")) bench_decode(bandwidth);
  if (wants("prefill")) bench_prefill();
  if (argc > 1 && wants("profile")) bench_prompt(8192, 65536, Scalar::kBF16);
  return 0;
}
