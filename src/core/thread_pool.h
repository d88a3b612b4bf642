// ThreadPool: a fixed set of threads that run the parallel loops of one step after another.
//
// The calling thread takes part, so `num_threads` is the number of cores in use: nothing is oversubscribed.
// Workers spin briefly between loops, since a decode step runs hundreds of short ones, then sleep. A loop
// waits only for workers that take part: where other processes want the cores, one that is not scheduled in
// time misses it.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace minimax {

class ThreadPool {
 public:
  // `num_threads` 0: as many as this process may run on.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // About 10 us on one core.
  static constexpr int64_t kMinSharedWork = 200'000;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i, thread) for i in [0, count), thread in [0, num_threads()), each index once, in any order;
  // returns when all are done. One loop at a time; `body` must not throw and must not start another loop.
  // `work` is the loop's total of scalar operations, roughly: a loop too short to be worth a hand-over runs
  // on the calling thread.
  template <typename Body>
  void parallel_for(int64_t count, Body&& body, int64_t work = kMinSharedWork) {
    if (count <= 0) return;
    if (count == 1 || workers_.empty() || work < kMinSharedWork) {
      for (int64_t i = 0; i < count; ++i) body(i, 0);
      return;
    }
    using Function = std::remove_reference_t<Body>;
    run(
        count,
        [](const void* context, int64_t i, int thread) {
          (*static_cast<const Function*>(context))(i, thread);
        },
        &body);
  }

 private:
  using Invoke = void (*)(const void* context, int64_t i, int thread);

  void run(int64_t count, Invoke invoke, const void* context);
  void work(int thread);
  bool enter();
  void drain(int thread);
  void wait_for_epoch(uint32_t seen);

  std::vector<std::thread> workers_;
  Invoke invoke_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};  // counts loops, for workers that wait for one
  // Whether the loop may be entered, and how many workers are inside. What the loop is about changes only
  // while it is closed and empty.
  alignas(64) std::atomic<uint32_t> gate_{0};
  std::atomic<bool> stop_{false};
};

// Number of processors this process may run on.
int available_processors();

}  // namespace minimax
