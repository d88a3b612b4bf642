// Area: rows and columns of a stored tensor seen as a matrix. All dimensions but the last are rows; a vector
// is one row.
#pragma once

#include <cstdint>
#include <span>

#include "core/range.h"

namespace minimax::formats {

struct Area {
  Range rows;
  Range columns;
};

// Elements that at least one of the areas has.
int64_t covered_elements(std::span<const Area> areas);

}  // namespace minimax::formats
