// What each op of a step takes, for `minimax bench --ops`.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "ops/backend.h"

namespace minimax::apps {

// Times every op by itself, waiting for the device before and after: a step takes longer meanwhile. What an
// empty wait takes is subtracted.
class OpTimes : public ops::Tracer {
 public:
  struct Row {
    int64_t calls = 0;
    double seconds = 0;
    double bytes = 0;
    double flops = 0;
  };

  explicit OpTimes(ops::Backend& backend) : backend_(backend) {}

  void on_op(const ops::OpRecord& record) override;
  void on_done(const ops::OpRecord& record) override;

  // By op, and for products by their shape too.
  const std::map<std::string, Row>& rows() const { return rows_; }
  void clear() { rows_.clear(); }
  // A table with the floor of each row at `bandwidth` bytes and `rate` operations a second, and its share.
  std::string table(double bandwidth, double rate) const;

 private:
  using Clock = std::chrono::steady_clock;

  double empty_wait();

  ops::Backend& backend_;
  Clock::time_point begin_;
  double overhead_ = -1;
  std::map<std::string, Row> rows_;
};

}  // namespace minimax::apps
