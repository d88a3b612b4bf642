// What a sample's tokens must form, as masks over the vocabulary. A grammar is one; the engine knows none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace minimax::engine {

// Used by one thread at a time, for one sample.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Overwrites `mask`: a bit for each token that may come next, stop tokens included. THROWS: Error when none
  // may; the sample then ends with it.
  virtual void fill_mask(std::span<uint64_t> mask) = 0;
  // The token that was drawn, also a stop token. THROWS: Error when it may not come here.
  virtual void accept(int32_t token) = 0;
};

// Called once for each sample of a request while it is submitted. RETURNS: never null. THROWS: Error, which
// `submit` hands on.
using ConstraintMaker = std::function<std::unique_ptr<TokenConstraint>()>;

}  // namespace minimax::engine
