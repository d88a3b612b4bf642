#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace minimax {
namespace {

// About 50 us of polling: longer than the serial work between two loops of a decode step.
constexpr int kSpins = 2000;
constexpr uint32_t kOpen = uint32_t{1} << 31U;  // of the gate; the rest counts workers

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int num_threads) {
  const int total = num_threads > 0 ? num_threads : available_processors();
  for (int thread = 1; thread < total; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t count, Invoke invoke, const void* context) {
  invoke_ = invoke;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  drain(0);
  gate_.fetch_and(~kOpen, std::memory_order_relaxed);
  for (int spins = 0; gate_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::drain(int thread) {
  for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
       i = next_.fetch_add(1, std::memory_order_relaxed)) {
    invoke_(context_, i, thread);
  }
}

void ThreadPool::wait_for_epoch(uint32_t seen) {
  for (int spins = 0; spins < kSpins; ++spins) {
    if (epoch_.load(std::memory_order_acquire) != seen) return;
    pause();
  }
  while (epoch_.load(std::memory_order_acquire) == seen) epoch_.wait(seen, std::memory_order_acquire);
}

bool ThreadPool::enter() {
  uint32_t gate = gate_.load(std::memory_order_relaxed);
  while ((gate & kOpen) != 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed))
      return true;
  }
  return false;
}

void ThreadPool::work(int thread) {
  for (uint32_t seen = 0;;) {
    wait_for_epoch(seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!enter()) continue;  // the others were faster
    drain(thread);
    gate_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace minimax
