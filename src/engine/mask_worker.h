// The thread that finds out which tokens may come next in constrained samples, while the model runs the step
// that draws them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/constraint.h"

namespace minimax::engine {

// A constrained sample: the worker's own as long as a step with it may run.
struct ConstrainedSample {
  std::unique_ptr<TokenConstraint> constraint;
  std::vector<int32_t> stop_tokens;  // not drawn before min_tokens, unless nothing else may come
  int64_t num_accepted = 0;
  std::string error;  // why no token may be drawn any more
};

// One mask to fill.
struct MaskJob {
  std::shared_ptr<ConstrainedSample> sample;
  int64_t row = 0;            // of the step's sampling
  int64_t num_generated = 0;  // tokens before the one to be drawn
  int32_t last_token = -1;    // the newest of them
  bool bans_stop = false;
  int64_t num_tokens = 0;  // of the vocabulary
  std::span<uint64_t> mask{};
  std::string error{};  // the result when no token may be drawn; the mask then allows everything
};

class MaskWorker {
 public:
  MaskWorker();
  ~MaskWorker();
  MaskWorker(const MaskWorker&) = delete;
  MaskWorker& operator=(const MaskWorker&) = delete;

  // REQUIRES: the jobs before are done; `jobs` stays as it is until `wait` returns.
  void begin(std::span<MaskJob> jobs);
  void wait();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::span<MaskJob> jobs_;
  bool is_busy_ = false;
  bool stops_ = false;
  std::thread thread_;
};

// What the worker does for each.
void fill(MaskJob& job);

}  // namespace minimax::engine
