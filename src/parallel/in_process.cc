#include "parallel/in_process.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "parallel/partition.h"

namespace minimax::parallel {
namespace {

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an unknown error";
  }
}

}  // namespace

class InProcessGroup::Rank final : public Comm {
 public:
  Rank(InProcessGroup& group, int64_t rank) : group_(group), rank_(rank) {}

  int64_t rank() const override { return rank_; }
  int64_t size() const override { return group_.size(); }
  void barrier() override { group_.wait_for_all(); }

 private:
  void run_all_reduce_sum(ops::OpContext&, const Tensor& x) override {
    group_.meet(rank_, {"all_reduce_sum", x});
    const Range mine = split(x.numel(), size(), rank_);
    x.dtype() == DType::kBF16 ? sum<bf16>(mine) : sum<float>(mine);
    group_.wait_for_all();
  }

  void run_all_gather_columns(ops::OpContext&, const Tensor& x, std::span<const int64_t> bounds) override {
    group_.meet(rank_, {"all_gather_columns", x});
    for (int64_t r = 0; r < size(); ++r) {
      if (r != rank_) copy_columns(group_.posts_[r].x, x, {bounds[r], bounds[r + 1]});
    }
    group_.wait_for_all();
  }

  // Elements `mine` of all ranks' tensors, a stretch that stays in the nearest cache at a time.
  template <typename T>
  void sum(Range mine) {
    constexpr int64_t kStretch = 256;
    std::array<float, kStretch> total;
    for (int64_t first = mine.begin; first < mine.end; first += kStretch) {
      const int64_t count = std::min(kStretch, mine.end - first);
      std::fill_n(total.begin(), count, 0.0F);
      for (const Post& post : group_.posts_) {
        const T* x = post.x.data<T>() + first;
        for (int64_t i = 0; i < count; ++i) total[i] += to_float(x[i]);
      }
      for (const Post& post : group_.posts_) {
        T* x = post.x.data<T>() + first;
        for (int64_t i = 0; i < count; ++i) x[i] = from_float<T>(total[i]);
      }
    }
  }

  static void copy_columns(const Tensor& from, const Tensor& to, Range columns) {
    if (columns.empty()) return;
    const Tensor source = from.slice(1, columns.begin, columns.end);
    const Tensor target = to.slice(1, columns.begin, columns.end);
    const int64_t element = size_of(to.dtype());
    for (int64_t t = 0; t < to.dim(0); ++t) {
      std::memcpy(static_cast<std::byte*>(target.raw()) + t * target.stride(0) * element,
                  static_cast<const std::byte*>(source.raw()) + t * source.stride(0) * element,
                  static_cast<size_t>(columns.size() * element));
    }
  }

  InProcessGroup& group_;
  int64_t rank_;
};

InProcessGroup::InProcessGroup(int64_t size) : size_(size), posts_(static_cast<size_t>(size)) {
  MM_CHECK(size >= 1, "a group of {} ranks", size);
  for (int64_t rank = 0; rank < size; ++rank) ranks_.push_back(std::make_unique<Rank>(*this, rank));
}

InProcessGroup::~InProcessGroup() = default;

Comm& InProcessGroup::comm(int64_t rank) const { return *ranks_.at(static_cast<size_t>(rank)); }

void InProcessGroup::fail(int64_t rank, const std::exception_ptr& error) {
  const std::lock_guard lock(mutex_);
  if (!first_error_) first_error_ = error;
  if (broken_.empty()) broken_ = fmt::format("rank {} of {} failed: {}", rank, size_, message_of(error));
  changed_.notify_all();
}

void InProcessGroup::leave(int64_t rank) {
  const std::lock_guard lock(mutex_);
  if (broken_.empty()) broken_ = fmt::format("rank {} of {} ended while others wait for it", rank, size_);
  changed_.notify_all();
}

std::exception_ptr InProcessGroup::first_error() const {
  const std::lock_guard lock(mutex_);
  return first_error_;
}

void InProcessGroup::throw_unless_whole() const {
  if (!broken_.empty()) throw Error(broken_);
}

void InProcessGroup::wait_for_all() {
  std::unique_lock lock(mutex_);
  throw_unless_whole();
  const uint64_t generation = generation_;
  if (++arrived_ == size_) {
    arrived_ = 0;
    ++generation_;
    changed_.notify_all();
    return;
  }
  changed_.wait(lock, [&] { return generation_ != generation || !broken_.empty(); });
  // A rank that has gone on and left meanwhile has kept nobody waiting.
  if (generation_ == generation) throw_unless_whole();
}

void InProcessGroup::meet(int64_t rank, const Post& post) {
  posts_[static_cast<size_t>(rank)] = post;
  wait_for_all();
  for (int64_t r = 0; r < size_; ++r) {
    const Post& other = posts_[static_cast<size_t>(r)];
    MM_CHECK(other.op == post.op && other.x.dtype() == post.x.dtype() &&
                 std::ranges::equal(other.x.shape(), post.x.shape()),
             "rank {} calls {} on {}, rank {} {} on {}", rank, post.op, post.x.describe(), r, other.op,
             other.x.describe());
  }
}

void run_ranks(int64_t size, const std::function<void(Comm&)>& body) {
  InProcessGroup group(size);
  const auto run = [&](int64_t rank) {
    try {
      body(group.comm(rank));
      group.leave(rank);
    } catch (...) {
      group.fail(rank, std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int64_t rank = 1; rank < size; ++rank) threads.emplace_back(run, rank);
    run(0);
  }
  if (const std::exception_ptr error = group.first_error()) std::rethrow_exception(error);
}

}  // namespace minimax::parallel
