// The thread that runs prepared steps, in order, while the next ones are planned.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/model_runner.h"

namespace minimax::engine {

class StepThread {
 public:
  using Clock = std::chrono::steady_clock;
  struct Result {
    StepBuffers* step = nullptr;
    Clock::time_point begin, end;
    std::exception_ptr error;
  };

  // REQUIRES: `runner` outlives this and is executed by nobody else.
  explicit StepThread(ModelRunner& runner);
  // Waits for the steps begun.
  ~StepThread();
  StepThread(const StepThread&) = delete;
  StepThread& operator=(const StepThread&) = delete;

  void begin(StepBuffers& step);
  // Waits for the oldest step begun and not yet waited for.
  Result wait();

 private:
  void run();

  ModelRunner& runner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StepBuffers*> begun_;
  std::deque<Result> done_;
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace minimax::engine
