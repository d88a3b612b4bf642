// Ranks as threads of one process, which read and write each other's tensors.
//
// It proves the sharding rules where there is one machine; nothing in it is tuned. Summing needs no memory of
// its own: every rank sums one slice of the elements and writes the result to all ranks' tensors.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/comm.h"

namespace minimax::parallel {

class InProcessGroup {
 public:
  explicit InProcessGroup(int64_t size);
  ~InProcessGroup();
  InProcessGroup(const InProcessGroup&) = delete;
  InProcessGroup& operator=(const InProcessGroup&) = delete;

  int64_t size() const { return size_; }
  // For one thread at a time; valid as long as the group.
  Comm& comm(int64_t rank) const;

  // After either, ranks that wait or come to wait for `rank` get an Error that names it.
  void fail(int64_t rank, const std::exception_ptr& error);
  void leave(int64_t rank);
  // Of the rank that failed first; null when none did.
  std::exception_ptr first_error() const;

 private:
  class Rank;

  // What a rank brings to a collective.
  struct Post {
    std::string_view op;
    Tensor x;
  };

  void wait_for_all();
  // Posts the operand and returns when all ranks have, having compared them.
  void meet(int64_t rank, const Post& post);
  void throw_unless_whole() const;

  int64_t size_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<Post> posts_;  // [size]: rank r's is read by others between two meetings only

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int64_t arrived_ = 0;
  uint64_t generation_ = 0;
  std::string broken_;  // why nobody may wait any more
  std::exception_ptr first_error_;
};

// Runs body(comm) on `size` threads, one a rank, the caller's among them. A rank that throws or returns early
// does not leave the others waiting. RETURNS: when all have ended. THROWS: what the first rank to fail threw.
void run_ranks(int64_t size, const std::function<void(Comm&)>& body);

}  // namespace minimax::parallel
