#include "apps/op_times.h"

#include <algorithm>
#include <vector>

namespace minimax::apps {
namespace {

// Products differ by shape; of other ops the name says it.
std::string label(const ops::OpRecord& record) {
  if (record.op != "linear") return std::string(record.op);
  for (const auto& [role, tensor] : record.operands) {
    if (role == "weight")
      return fmt::format("linear {} {}", shape_string(tensor.shape()), name(tensor.dtype()));
  }
  return "linear";
}

}  // namespace

double OpTimes::empty_wait() {
  std::vector<double> seconds;
  for (int i = 0; i < 20; ++i) {
    backend_.synchronize();
    const auto begin = Clock::now();
    backend_.synchronize();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + 10, seconds.end());
  return seconds[10];
}

void OpTimes::on_op(const ops::OpRecord&) {
  if (overhead_ < 0) overhead_ = empty_wait();
  backend_.synchronize();
  begin_ = Clock::now();
}

void OpTimes::on_done(const ops::OpRecord& record) {
  backend_.synchronize();
  Row& row = rows_[label(record)];
  ++row.calls;
  row.seconds += std::max(0.0, std::chrono::duration<double>(Clock::now() - begin_).count() - overhead_);
  row.bytes += record.cost.bytes;
  row.flops += record.cost.flops;
}

std::string OpTimes::table(double bandwidth, double rate) const {
  std::string text = fmt::format("  {:<34}{:>7}{:>12}{:>10}{:>11}{:>12}{:>8}\n", "op", "calls", "us a call",
                                 "GB/s", "GFLOP/s", "floor us", "share");
  for (const auto& [name, row] : rows_) {
    const auto calls = static_cast<double>(row.calls);
    const double floor = std::max(row.bytes / bandwidth, row.flops / rate);
    text += fmt::format("  {:<34}{:>7}{:>12.1f}{:>10.0f}{:>11.0f}{:>12.1f}{:>7.0f}%\n", name, row.calls,
                        1e6 * row.seconds / calls, row.bytes / row.seconds / 1e9,
                        row.flops / row.seconds / 1e9, 1e6 * floor / calls, 100 * floor / row.seconds);
  }
  return text;
}

}  // namespace minimax::apps
