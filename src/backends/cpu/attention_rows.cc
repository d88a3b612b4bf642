// Attention of query rows, dense or over chosen blocks, over the rows of the cache as they lie there.
//
// In decode a row's keys are cut into splits by their number alone, whatever the batch and the number of
// threads, and the splits' results are put together in their order: so is the result the same in any batch on
// any machine.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/paged_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_rows.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

#ifndef MINIMAX_ATTENTION_ROWS_COMMON_
#define MINIMAX_ATTENTION_ROWS_COMMON_
namespace minimax::cpu {

// Keys of a split: enough of them for every thread where there are few keys, and no more than kMaxSplits.
constexpr int64_t kShortSplitKeys = 256;
constexpr int64_t kSplitKeys = 512;
constexpr int64_t kShortList = 4 * kSplitKeys;
constexpr int64_t kMaxSplits = 256;

constexpr int64_t round_up_64(int64_t n) { return (n + 63) / 64 * 64; }

// Keys [first_key, end_key), as far as they exist, of the list of row `token` of sequence b at `position`,
// for kv heads [first_head, end_head); or those of `tokens` rows from there on, for one kv head. The list
// holds all keys up to the position, or those of the chosen blocks.
struct RowTask {
  int64_t b;
  int64_t token;
  int64_t tokens;
  int64_t position;
  int64_t first_key;
  int64_t end_key;
  int64_t first_head;
  int64_t end_head;
};

// Unnormalised sums, the largest score and the sum of exponentials of each query head of one split, or of
// each (token, query head of one kv head) of a task of many tokens.
struct PartialRow {
  float* sums;  // [rows, padded]
  float* largest;
  float* weights;
};

// Rows of a block and of the next one, and those to fetch.
constexpr int64_t kRowOffsets = 3 * kRowKeys;

// Query rows of a task of many tokens.
constexpr int64_t kTaskRows = 64;

inline int64_t task_tokens(int64_t group) { return std::max<int64_t>(1, kTaskRows / group); }
inline int64_t max_task_rows(const PagedView& view) {
  return std::max(view.q.dim(1), task_tokens(view.group()) * view.group());
}

inline int64_t row_scratch_bytes(const PagedView& view, const RowKernel& kernel) {
  const int64_t rows = max_task_rows(view);
  return kRowOffsets * int64_t{sizeof(int64_t)} +
         round_up_64(rows * kernel.padded(view.q.dim(2)) * kernel.query_element_bytes) +
         rows * kRowKeys * int64_t{sizeof(float)};
}

}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

class RowAttention {
 public:
  RowAttention(const PagedView& view, const RowKernel& kernel, const RowTask& task, std::byte* memory)
      : view_(view), kernel_(kernel), task_(task), group_(view.group()), head_dim_(view.q.dim(2)) {
    rows_ = task.tokens * group_;
    padded_ = kernel.padded(head_dim_);

    offsets_ = reinterpret_cast<int64_t*>(memory);
    next_ = offsets_ + 2 * kRowKeys;
    memory += kRowOffsets * sizeof(int64_t);
    queries_ = memory;
    memory += round_up_64(max_task_rows(view) * padded_ * kernel.query_element_bytes);
    scores_ = reinterpret_cast<float*>(memory);
  }

  // Dense attention reads keys and values of all its kv heads in the order of memory, which is what the
  // processor's own prefetching needs; chosen blocks differ from head to head.
  void Run(const PartialRow& partial) {
    for (int64_t head = task_.first_head; head < task_.end_head; ++head) Begin(head, partial);
    if (!view_.selection.defined()) {
      RunHeads(task_.first_head, task_.end_head, partial);
      return;
    }
    for (int64_t head = task_.first_head; head < task_.end_head; ++head) RunHeads(head, head + 1, partial);
  }

 private:
  static const std::byte* Base(const Tensor& cache) { return static_cast<const std::byte*>(cache.raw()); }

  // Where the rows of kv head `head` begin in the partial results.
  int64_t FirstRow(int64_t head) const { return task_.tokens == 1 ? head * group_ : 0; }

  std::byte* Queries(int64_t head) const {
    return queries_ + FirstRow(head) * padded_ * kernel_.query_element_bytes;
  }

  // Row r = token * group + head within the group.
  void Begin(int64_t head, const PartialRow& partial) {
    const int64_t element = size_of(view_.q.dtype());
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t at =
          (task_.token + r / group_) * view_.q.stride(0) + (head * group_ + r % group_) * view_.q.stride(1);
      kernel_.prepare(static_cast<const std::byte*>(view_.q.raw()) + at * element, view_.q.dtype(), head_dim_,
                      Queries(head) + r * padded_ * kernel_.query_element_bytes);
    }
    std::fill_n(partial.sums + FirstRow(head) * padded_, rows_ * padded_, 0.0F);
    std::fill_n(partial.largest + FirstRow(head), rows_, std::numeric_limits<float>::lowest());
    std::fill_n(partial.weights + FirstRow(head), rows_, 0.0F);
  }

  // Heads [begin, end), which share one list of keys.
  void RunHeads(int64_t begin, int64_t end, const PartialRow& partial) {
    const int64_t list = ListLength(begin);
    const int64_t end_key = std::min(task_.end_key, list);
    for (int64_t first = task_.first_key; first < end_key; first += kRowKeys) {
      const int64_t count = std::min(kRowKeys, end_key - first);
      FindRows(begin, first, std::min(first + 2 * kRowKeys, list));
      if (first == task_.first_key && end - begin > 1) FetchRows(begin, end, count);
      for (int64_t head = begin; head < end; ++head) {
        FindNext(head - begin, end - begin);
        Block(head, first, count, partial);
      }
    }
  }

  // Keys [first, first + count) of the list, which are the rows found.
  void Block(int64_t head, int64_t first, int64_t count, const PartialRow& partial) {
    const int64_t row_bytes = head_dim_ * size_of(view_.k_cache.dtype());
    float* sums = partial.sums + FirstRow(head) * padded_;
    const CachedRows keys{Base(view_.k_cache) + head * row_bytes, offsets_, next_, count, head_dim_};
    kernel_.dot(keys, Queries(head), rows_, scores_);
    for (int64_t r = 0; r < rows_; ++r) {
      // Of one token, the list ends with its position; of many, with the last one's.
      const int64_t visible = task_.tokens == 1 ? count : task_.position + r / group_ + 1 - first;
      Softmax(scores_ + r * kRowKeys, std::clamp<int64_t>(visible, 0, count), sums + r * padded_,
              partial.largest[FirstRow(head) + r], partial.weights[FirstRow(head) + r]);
    }
    const CachedRows values{Base(view_.v_cache) + head * row_bytes, offsets_, next_, count, head_dim_};
    kernel_.accumulate(values, scores_, rows_, sums);
  }

  // Asks for the first rows of a split, whole tokens, which no block before them could.
  void FetchRows(int64_t begin, int64_t end, int64_t count) const {
    constexpr int kSecondLevel = 2;
    const int64_t row_bytes = head_dim_ * size_of(view_.k_cache.dtype());
    for (const Tensor* cache : {&view_.k_cache, &view_.v_cache}) {
      for (int64_t i = 0; i < count; ++i) {
        const std::byte* row = Base(*cache) + offsets_[i];
        for (int64_t b = begin * row_bytes; b < end * row_bytes; b += 64)
          __builtin_prefetch(row + b, 0, kSecondLevel);
      }
    }
  }

  // What to fetch during the n-th of `heads` heads: its share of the next block, whole tokens, in the order
  // of memory. One head alone has gaps in memory and fetches a little ahead.
  void FindNext(int64_t n, int64_t heads) {
    constexpr int64_t kRowsAhead = 16;
    if (heads == 1) {
      std::copy_n(offsets_ + kRowsAhead, kRowKeys, next_);
      return;
    }
    const int64_t row_bytes = head_dim_ * size_of(view_.k_cache.dtype());
    int64_t token = kRowKeys + n * kRowKeys / heads;
    int64_t head = n * kRowKeys % heads;
    for (int64_t i = 0; i < kRowKeys; ++i) {
      next_[i] = offsets_[token] + (head - n) * row_bytes;
      if (++head < heads) continue;
      head = 0;
      ++token;
    }
  }

  // Chosen blocks of kv head `head`; null for dense attention.
  const int32_t* Chosen(int64_t head) const {
    if (!view_.selection.defined()) return nullptr;
    return view_.selection.row<int32_t>(task_.token) + head * view_.selection.dim(2);
  }

  // The newest block, the last of the list, may be partial.
  int64_t ListLength(int64_t head) const {
    const int32_t* chosen = Chosen(head);
    if (chosen == nullptr) return task_.position + task_.tokens;
    const int64_t block_size = view_.k_cache.dim(1);
    int64_t keys = 0;
    for (int64_t n = 0; n < view_.selection.dim(2) && chosen[n] >= 0; ++n) {
      keys += std::clamp<int64_t>(task_.position + 1 - chosen[n] * block_size, 0, block_size);
    }
    return keys;
  }

  // Offsets of entries [first, end) of the list; behind its end the last again.
  void FindRows(int64_t head, int64_t first, int64_t end) {
    const int64_t page_size = view_.k_cache.dim(1);
    const int64_t row_bytes = view_.k_cache.dim(2) * head_dim_ * size_of(view_.k_cache.dtype());
    const int32_t* pages = view_.block_table.row<int32_t>(task_.b);
    const int32_t* chosen = Chosen(head);
    int64_t* out = offsets_;
    for (int64_t i = first; i < end;) {
      const int64_t entry = i / page_size;
      const int64_t in_page = i % page_size;
      const int64_t slot = int64_t{pages[chosen != nullptr ? chosen[entry] : entry]} * page_size + in_page;
      const int64_t run = std::min(page_size - in_page, end - i);
      for (int64_t r = 0; r < run; ++r) *out++ = (slot + r) * row_bytes;
      i += run;
    }
    std::fill(out, offsets_ + 2 * kRowKeys, out[-1]);
  }

  // Scores of one query become weights; what was summed so far is brought to the new largest score.
  void Softmax(float* scores, int64_t count, float* sums, float& largest, float& weights) {
    const DF d;
    const int64_t lanes = LanesF32();
    const VF scale = hn::Set(d, view_.scale);
    std::fill(scores + count, scores + kRowKeys, 0.0F);
    VF most = hn::Set(d, largest);
    for (int64_t i = 0; i < count; i += lanes) {
      const VF x = hn::Mul(hn::LoadU(d, scores + i), scale);
      most = hn::Max(most, hn::IfThenElse(Valid(i, count), x, most));
    }
    const float new_largest = hn::GetLane(hn::MaxOfLanes(d, most));
    const VF subtract = hn::Set(d, new_largest);
    VF sum = hn::Zero(d);
    for (int64_t i = 0; i < count; i += lanes) {
      const VF x = hn::MulSub(hn::LoadU(d, scores + i), scale, subtract);
      const VF p = hn::IfThenElseZero(Valid(i, count), hn::Exp(d, x));
      hn::StoreU(p, d, scores + i);
      sum = hn::Add(sum, p);
    }
    if (new_largest == largest) {
      weights += SumOfLanes(sum);
      return;
    }
    const float factor = std::exp(largest - new_largest);
    weights = weights * factor + SumOfLanes(sum);
    largest = new_largest;
    for (int64_t i = 0; i < padded_; i += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, sums + i), hn::Set(d, factor)), d, sums + i);
    }
  }

  static hn::Mask<DF> Valid(int64_t i, int64_t count) {
    return hn::FirstN(DF(), static_cast<size_t>(std::min(count - i, LanesF32())));
  }

  const PagedView& view_;
  const RowKernel& kernel_;
  const RowTask& task_;
  int64_t group_;
  int64_t rows_;
  int64_t head_dim_;
  int64_t padded_;
  int64_t* offsets_;    // [2 kRowKeys]
  int64_t* next_;       // [kRowKeys]
  std::byte* queries_;  // [rows, padded]
  float* scores_;       // [rows, kRowKeys]
};

void AttendRow(const PagedView& view, const RowKernel& kernel, const RowTask& task, std::byte* memory,
               const PartialRow& partial) {
  RowAttention(view, kernel, task, memory).Run(partial);
}

// Puts the splits of query head `head` together into the first one's sums, normalised.
void CombineSplits(const PartialRow* splits, int64_t num_splits, int64_t head, int64_t padded) {
  const DF d;
  float largest = splits[0].largest[head];
  for (int64_t i = 1; i < num_splits; ++i) largest = std::max(largest, splits[i].largest[head]);
  float weights = 0;
  for (int64_t i = 0; i < num_splits; ++i) {
    weights += splits[i].weights[head] * std::exp(splits[i].largest[head] - largest);
  }
  float* out = splits[0].sums + head * padded;
  for (int64_t i = 0; i < num_splits; ++i) {
    const VF factor = hn::Set(d, std::exp(splits[i].largest[head] - largest) / weights);
    const float* sums = splits[i].sums + head * padded;
    for (int64_t j = 0; j < padded; j += LanesF32()) {
      const VF x = hn::Mul(hn::LoadU(d, sums + j), factor);
      hn::StoreU(i == 0 ? x : hn::Add(x, hn::LoadU(d, out + j)), d, out + j);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(AttendRow);
HWY_EXPORT(CombineSplits);

void store_row(const PagedView& view, const RowKernel& kernel, int64_t token, int64_t head,
               const float* sums) {
  const int64_t at = token * view.out.stride(0) + head * view.out.stride(1);
  const int64_t head_dim = view.q.dim(2);
  const auto store = [&](auto* out) {
    for (int64_t first = 0; first < head_dim; first += kernel.chunk) {
      for (int64_t j = 0; j < kernel.chunk; ++j) {
        const int64_t d = first + kernel.order[j];
        if (d < head_dim) out[d] = from_float<std::remove_pointer_t<decltype(out)>>(sums[first + j]);
      }
    }
  };
  if (view.out.dtype() == DType::kBF16) {
    store(view.out.data<bf16>() + at);
  } else {
    store(view.out.data<float>() + at);
  }
}

// Longer lists have longer splits, so that partial results stay small.
int64_t split_keys(int64_t list) {
  if (list <= kShortList) return kShortSplitKeys;
  return kSplitKeys * ((list + kSplitKeys * kMaxSplits - 1) / (kSplitKeys * kMaxSplits));
}
int64_t splits_of(int64_t list) { return (list + split_keys(list) - 1) / split_keys(list); }

// Memory of the row path: `slots` partial rows, then scratch of each thread.
class RowMemory {
 public:
  RowMemory(const PagedView& view, const RowKernel& kernel, int64_t threads, std::byte* memory)
      : rows_(max_task_rows(view)), padded_(kernel.padded(view.q.dim(2))), threads_(threads) {
    // A row's splits must fit; beyond that some rows of a batch, which keep all threads busy.
    constexpr int64_t kBatchSlots = 64;
    slots_ = std::max({splits_of(view.max_keys()), splits_of(std::min(view.max_keys(), kShortList)),
                       8 * threads, kBatchSlots});
    scratch_bytes_ = row_scratch_bytes(view, kernel);
    memory_ = memory;
  }

  int64_t slots() const { return slots_; }
  int64_t bytes() const { return slots_ * (slot_bytes() + kRecordBytes) + threads_ * scratch_bytes_; }
  PartialRow partial(int64_t slot) const {
    auto* sums = reinterpret_cast<float*>(memory_ + slot * slot_bytes());
    return {sums, sums + rows_ * padded_, sums + rows_ * padded_ + rows_};
  }
  PartialRow* partials() const { return reinterpret_cast<PartialRow*>(memory_ + slots_ * slot_bytes()); }
  RowTask* tasks() const { return reinterpret_cast<RowTask*>(partials() + slots_); }
  int64_t* first_tasks() const { return reinterpret_cast<int64_t*>(tasks() + slots_); }  // of each sequence
  std::byte* scratch(int thread) const {
    return memory_ + slots_ * (slot_bytes() + kRecordBytes) + thread * scratch_bytes_;
  }

 private:
  static constexpr int64_t kRecordBytes = round_up_64(sizeof(PartialRow) + sizeof(RowTask) + sizeof(int64_t));
  int64_t slot_bytes() const {
    return round_up_64(rows_ * (padded_ + 2) * static_cast<int64_t>(sizeof(float)));
  }

  int64_t rows_;
  int64_t padded_;
  int64_t threads_;
  int64_t slots_;
  int64_t scratch_bytes_;
  std::byte* memory_;
};

// Rows of decode: all splits of as many sequences at a time as there are slots for.
class DecodeWave {
 public:
  DecodeWave(const PagedView& view, const RowKernel& kernel, const RowMemory& memory, ThreadPool& pool)
      : view_(view), kernel_(kernel), memory_(memory), pool_(pool) {}

  void add(int64_t b, int64_t token, int64_t position) {
    const int64_t list = std::min(position + 1, view_.max_keys());
    const int64_t splits = splits_of(list);
    if (count_ + splits > memory_.slots()) flush();
    keys_ += list;
    memory_.first_tasks()[sequences_++] = count_;
    for (int64_t i = 0; i < splits; ++i) {
      const int64_t first = i * split_keys(list);
      memory_.partials()[count_] = memory_.partial(count_);
      memory_.tasks()[count_++] = {b, token, 1, position, first, first + split_keys(list), 0, 0};
    }
  }

  void flush() {
    if (sequences_ >= 2 * pool_.num_threads()) {
      attend_sequences();
    } else {
      attend_splits();
    }
    sequences_ = 0;
    count_ = 0;
    keys_ = 0;
  }

 private:
  int64_t kv_heads() const { return view_.k_cache.dim(2); }
  int64_t work() const { return keys_ * view_.q.dim(2) * view_.q.dim(1); }
  int64_t end_of(int64_t sequence) const {
    return sequence + 1 < sequences_ ? memory_.first_tasks()[sequence + 1] : count_;
  }

  void attend(int64_t slot, int64_t first_head, int64_t end_head, int thread) const {
    RowTask task = memory_.tasks()[slot];
    task.first_head = first_head;
    task.end_head = end_head;
    HWY_DYNAMIC_DISPATCH(AttendRow)
    (view_, kernel_, task, memory_.scratch(thread), memory_.partials()[slot]);
  }

  // A thread takes whole sequences, so that it finds their partial results in its own cache.
  void attend_sequences() const {
    const auto attend_one = [&](int64_t sequence, int thread) {
      const int64_t first = memory_.first_tasks()[sequence];
      for (int64_t slot = first; slot < end_of(sequence); ++slot) attend(slot, 0, kv_heads(), thread);
      for (int64_t head = 0; head < view_.q.dim(1); ++head) finish(first, end_of(sequence) - first, head);
    };
    pool_.parallel_for(sequences_, attend_one, work());
  }

  // Threads share the splits of few sequences; of chosen blocks, which are read head by head anyway, the
  // heads too.
  void attend_splits() const {
    const int64_t wanted = (2 * pool_.num_threads() + count_ - 1) / std::max<int64_t>(count_, 1);
    const int64_t ranges = view_.selection.defined() ? std::min(kv_heads(), wanted) : 1;
    const int64_t heads_per_range = (kv_heads() + ranges - 1) / std::max<int64_t>(ranges, 1);
    const auto attend_range = [&](int64_t i, int thread) {
      const int64_t first_head = std::min(kv_heads(), i % ranges * heads_per_range);
      attend(i / ranges, first_head, std::min(kv_heads(), first_head + heads_per_range), thread);
    };
    pool_.parallel_for(count_ * ranges, attend_range, work());
    const int64_t heads = view_.q.dim(1);
    const auto combine = [&](int64_t i, int) {
      const int64_t first = memory_.first_tasks()[i / heads];
      finish(first, end_of(i / heads) - first, i % heads);
    };
    pool_.parallel_for(sequences_ * heads, combine, count_ * heads * view_.q.dim(2));
  }

  void finish(int64_t slot, int64_t splits, int64_t head) const {
    const PartialRow* partials = memory_.partials() + slot;
    const int64_t padded = kernel_.padded(view_.q.dim(2));
    HWY_DYNAMIC_DISPATCH(CombineSplits)(partials, splits, head, padded);
    store_row(view_, kernel_, memory_.tasks()[slot].token, head, partials->sums + head * padded);
  }

  const PagedView& view_;
  const RowKernel& kernel_;
  const RowMemory& memory_;
  ThreadPool& pool_;
  int64_t sequences_ = 0;
  int64_t count_ = 0;  // splits
  int64_t keys_ = 0;   // of all splits
};

// The rows of `task`, of one kv head, over their whole list.
void attend_whole(const PagedView& view, const RowKernel& kernel, const RowTask& task, std::byte* scratch,
                  const PartialRow& partial) {
  HWY_DYNAMIC_DISPATCH(AttendRow)(view, kernel, task, scratch, partial);
  const int64_t group = view.group();
  const int64_t padded = kernel.padded(view.q.dim(2));
  const int64_t first_row = task.tokens == 1 ? task.first_head * group : 0;
  for (int64_t r = 0; r < task.tokens * group; ++r) {
    HWY_DYNAMIC_DISPATCH(CombineSplits)(&partial, 1, first_row + r, padded);
    store_row(view, kernel, task.token + r / group, task.first_head * group + r % group,
              partial.sums + (first_row + r) * padded);
  }
}

// Prefill of one sequence. Dense: many tokens share each key. Over chosen blocks: one token at a time, a
// thread taking a run of them for one kv head, since neighbours choose similar blocks and find them in the
// cache.
void attend_rows_of(const PagedView& view, const RowKernel& kernel, const RowMemory& memory, ThreadPool& pool,
                    int64_t b, int64_t position) {
  const bool is_sparse = view.selection.defined();
  const int64_t run = is_sparse ? 16 : task_tokens(view.group());
  const int64_t step = is_sparse ? 1 : run;
  const int32_t* starts = view.query_starts.data<int32_t>();
  const int64_t tokens = starts[b + 1] - starts[b];
  const int64_t runs = (tokens + run - 1) / run;
  const int64_t kv_heads = view.k_cache.dim(2);
  const auto attend = [&](int64_t i, int thread) {
    const int64_t kv_head = i % kv_heads;
    // The last tokens have the most keys: they go first, so that threads finish together.
    const int64_t first = (runs - 1 - i / kv_heads) * run;
    const int64_t end = std::min(tokens, first + run);
    for (int64_t t = first; t < end; t += step) {
      const RowTask task{b,
                         starts[b] + t,
                         std::min(step, end - t),
                         position + t,
                         0,
                         std::numeric_limits<int64_t>::max(),
                         kv_head,
                         kv_head + 1};
      attend_whole(view, kernel, task, memory.scratch(thread), memory.partial(thread));
    }
  };
  pool.parallel_for(runs * kv_heads, attend);
}

}  // namespace

bool prefers_rows(const PagedView& view, int64_t tokens, const CpuOptions& options) {
  if (tokens == 1) return true;
  const DType cache = view.k_cache.dtype();
  return multiplies_bf16(row_kernel(view.q.dtype(), cache, options), cache);
}

int64_t rows_workspace_bytes(const PagedView& view, const ThreadPool& pool, const CpuOptions& options) {
  const RowKernel& kernel = row_kernel(view.q.dtype(), view.k_cache.dtype(), options);
  return RowMemory(view, kernel, pool.num_threads(), nullptr).bytes();
}

void attend_by_rows(const PagedView& view, ThreadPool& pool, const CpuOptions& options, std::byte* memory) {
  const RowKernel& kernel = row_kernel(view.q.dtype(), view.k_cache.dtype(), options);
  const RowMemory parts(view, kernel, pool.num_threads(), memory);
  const int32_t* starts = view.query_starts.data<int32_t>();
  DecodeWave wave(view, kernel, parts, pool);
  for (int64_t b = 0; b < view.seq_lens.dim(0); ++b) {
    const int64_t tokens = starts[b + 1] - starts[b];
    if (tokens != 1) continue;
    wave.add(b, starts[b], view.seq_lens.data<int32_t>()[b] - 1);
  }
  wave.flush();
  for (int64_t b = 0; b < view.seq_lens.dim(0); ++b) {
    const int64_t tokens = starts[b + 1] - starts[b];
    if (tokens <= 1 || !prefers_rows(view, tokens, options)) continue;
    attend_rows_of(view, kernel, parts, pool, b, view.seq_lens.data<int32_t>()[b] - tokens);
  }
}

}  // namespace minimax::cpu
#endif
