// Problems collected while a checkpoint is examined, so that the user sees all of them in one error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace minimax::formats {

class ProblemList {
 public:
  static constexpr size_t kMaxShown = 20;

  void add(std::string problem);
  bool empty() const { return count_ == 0; }

  // THROWS: Error "<summary>: <count> problem(s): <first kMaxShown, joined by ;> <remedy>" when not empty.
  void throw_if_any(const std::string& summary, const std::string& remedy) const;

 private:
  std::vector<std::string> shown_;
  int64_t count_ = 0;
};

}  // namespace minimax::formats
