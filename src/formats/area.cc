#include "formats/area.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

namespace minimax::formats {
namespace {

// Integers that at least one of the ranges has.
int64_t covered_integers(std::vector<Range>& ranges) {
  std::ranges::sort(ranges, {}, &Range::begin);
  int64_t count = 0;
  int64_t done = 0;
  for (const Range& range : ranges) {
    count += std::max<int64_t>(0, range.end - std::max(range.begin, done));
    done = std::max(done, range.end);
  }
  return count;
}

}  // namespace

int64_t covered_elements(std::span<const Area> areas) {
  std::set<int64_t> cuts;
  for (const Area& area : areas) cuts.insert({area.columns.begin, area.columns.end});
  int64_t count = 0;
  // Between two cuts an area has all columns or none.
  for (auto cut = cuts.begin(); cut != cuts.end() && std::next(cut) != cuts.end(); ++cut) {
    std::vector<Range> rows;
    for (const Area& area : areas) {
      if (area.columns.begin <= *cut && *cut < area.columns.end) rows.push_back(area.rows);
    }
    count += covered_integers(rows) * (*std::next(cut) - *cut);
  }
  return count;
}

}  // namespace minimax::formats
