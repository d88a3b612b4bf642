#include "engine/mask_worker.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::engine {
namespace {

bool is_empty(std::span<const uint64_t> mask) {
  return std::all_of(mask.begin(), mask.end(), [](uint64_t word) { return word == 0; });
}

void fill_mask(MaskJob& job) {
  ConstrainedSample& sample = *job.sample;
  // A request that was preempted comes back with the tokens that the constraint has seen.
  const int64_t missing = job.num_generated - sample.num_accepted;
  MM_CHECK(missing == 0 || (missing == 1 && job.last_token >= 0), "constraint: {} of {} tokens accepted",
           sample.num_accepted, job.num_generated);
  if (missing == 1) {
    sample.constraint->accept(job.last_token);
    ++sample.num_accepted;
  }
  sample.constraint->fill_mask(job.mask);
  if (job.num_tokens % 64 != 0)
    job.mask.back() &= (uint64_t{1} << static_cast<uint64_t>(job.num_tokens % 64)) - 1;
  if (is_empty(job.mask)) fail("the constraint allows no token of the model's vocabulary");
  if (!job.bans_stop) return;
  const std::vector<uint64_t> allowed(job.mask.begin(), job.mask.end());
  for (const int32_t token : sample.stop_tokens) {
    const auto bit = static_cast<uint64_t>(token);
    if (token >= 0 && bit / 64 < job.mask.size()) job.mask[bit / 64] &= ~(uint64_t{1} << (bit % 64));
  }
  // The text is complete and nothing can follow it: min_tokens gives way.
  if (is_empty(job.mask)) std::copy(allowed.begin(), allowed.end(), job.mask.begin());
}

}  // namespace

void fill(MaskJob& job) {
  if (job.sample->error.empty()) {
    try {
      fill_mask(job);
      return;
    } catch (const std::exception& error) {
      job.sample->error = error.what();
    }
  }
  job.error = job.sample->error;
  std::fill(job.mask.begin(), job.mask.end(), ~uint64_t{0});
}

MaskWorker::MaskWorker() : thread_([this] { run(); }) {}

MaskWorker::~MaskWorker() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void MaskWorker::begin(std::span<MaskJob> jobs) {
  {
    const std::lock_guard lock(mutex_);
    jobs_ = jobs;
    is_busy_ = true;
  }
  changed_.notify_all();
}

void MaskWorker::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !is_busy_; });
}

void MaskWorker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stops_ || is_busy_; });
    if (!is_busy_) return;
    const std::span<MaskJob> jobs = jobs_;
    lock.unlock();
    for (MaskJob& job : jobs) fill(job);
    lock.lock();
    is_busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace minimax::engine
