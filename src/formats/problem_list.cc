#include "formats/problem_list.h"

#include <fmt/ranges.h>

#include <utility>

#include "core/error.h"

namespace minimax::formats {

void ProblemList::add(std::string problem) {
  ++count_;
  if (shown_.size() < kMaxShown) shown_.push_back(std::move(problem));
}

void ProblemList::throw_if_any(const std::string& summary, const std::string& remedy) const {
  if (empty()) return;
  const int64_t hidden = count_ - static_cast<int64_t>(shown_.size());
  const std::string more = hidden > 0 ? fmt::format("; and {} more", hidden) : "";
  fail("{}: {} problem{}: {}{}. {}", summary, count_, count_ == 1 ? "" : "s", fmt::join(shown_, "; "), more,
       remedy);
}

}  // namespace minimax::formats
