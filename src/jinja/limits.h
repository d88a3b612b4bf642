// Bounds on what a template may cost. Templates come from checkpoints, i.e. from strangers.
#pragma once

#include <cstdint>

namespace minimax::jinja {

struct Limits {
  // Evaluated nodes, loop rounds and (by 64 bytes) scanned text of one render.
  int64_t max_steps = 50'000'000;
  // Bytes of all strings, lists and objects made during one render, freed or not.
  int64_t max_value_bytes = int64_t{1} << 30;
  int64_t max_output_bytes = int64_t{256} << 20;
  // Nesting of expressions and blocks in the source.
  int max_parse_depth = 200;
  // Nesting of evaluation: expressions, blocks and macro calls together.
  int max_eval_depth = 1000;
  int64_t max_source_bytes = int64_t{4} << 20;
};

// Nesting of lists and mappings inside one value, in the context as well as built by the template.
inline constexpr int kMaxValueDepth = 200;
// Largest Value::weight, so that lists holding one another many times cannot grow without bound.
inline constexpr int64_t kMaxValueWeight = int64_t{1} << 30;

}  // namespace minimax::jinja
