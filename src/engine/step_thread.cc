#include "engine/step_thread.h"

namespace minimax::engine {

StepThread::StepThread(ModelRunner& runner) : runner_(runner), thread_([this] { run(); }) {}

StepThread::~StepThread() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StepThread::begin(StepBuffers& step) {
  {
    const std::lock_guard lock(mutex_);
    begun_.push_back(&step);
  }
  changed_.notify_all();
}

StepThread::Result StepThread::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !done_.empty(); });
  Result result = std::move(done_.front());
  done_.pop_front();
  return result;
}

void StepThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stops_ || !begun_.empty(); });
    if (begun_.empty()) return;
    Result result{begun_.front(), Clock::now(), {}, nullptr};
    lock.unlock();
    try {
      runner_.execute(*result.step);
    } catch (...) {
      result.error = std::current_exception();
    }
    result.end = Clock::now();
    lock.lock();
    begun_.pop_front();
    done_.push_back(std::move(result));
    changed_.notify_all();
  }
}

}  // namespace minimax::engine
