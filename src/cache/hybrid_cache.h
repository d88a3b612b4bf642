// Pages and state slots of running sequences over one prefix cache: who reads and writes which page and slot.
//
// Keys and values of full pages are shared. A linear state cannot be cut, so what is shared of it are
// snapshots: the state after a page, left behind in its slot while the sequence goes on in another one (the
// slot read and the slot written differ for one step; nothing is copied). A sequence can therefore start from
// the deepest matching page that has a snapshot. The matching pages beyond it are kept: their tokens run
// through the layers again to rebuild the state, and write no keys and values.
//
// Invariant: every page and slot is held by the tree, by sequences, or free (check_integrity). Host logic,
// deterministic, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cache/index_pool.h"
#include "cache/prefix_tree.h"

namespace minimax::cache {

struct HybridCacheOptions {
  int64_t page_size = 16;
  int64_t num_pages = 0;
  int64_t num_slots = 0;             // 0: the model keeps no states
  int64_t snapshot_interval = 8192;  // tokens between snapshots inside a long prompt
  bool share_prefixes = true;
};

// Why a sequence starts behind its prompt's end.
enum class MissReason : uint8_t {
  kNone,        // all but the last token, which must be computed for its logits
  kNew,         // the pages were never seen, or are evicted
  kNoSnapshot,  // the pages are there, the state is not
  kDisabled,
};
std::string_view name(MissReason reason);

// What a sequence holds. Made by HybridCache::open; the cache alone changes it.
struct CachedSequence {
  std::vector<int32_t> pages;  // in the order of the sequence
  int64_t num_shared = 0;      // leading pages that came from the tree: never written
  int64_t length = 0;          // tokens computed: in the pages, and in the state
  int32_t slot = -1;           // state after `length` tokens; -1 for none (length 0)
  int32_t next_slot = -1;      // where the step under way writes the state
  PrefixNode* node = nullptr;  // deepest node of the tree on this sequence's path, pinned
  PrefixNode* turn = nullptr;  // node with the newest snapshot made while generating
  MissReason reason = MissReason::kNone;
};

// Slots of one step of a sequence.
struct StepSlots {
  int32_t read = -1;  // -1: start from zero
  int32_t write = -1;
};

struct HybridCacheStats {
  int64_t queries = 0;
  int64_t query_tokens = 0;
  int64_t page_hit_tokens = 0;  // tokens whose keys and values were there
  int64_t hit_tokens = 0;       // tokens that need no computing
  int64_t evicted_pages = 0;
  int64_t evicted_snapshots = 0;
};

class HybridCache {
 public:
  explicit HybridCache(const HybridCacheOptions& options);

  bool has_states() const { return options_.num_slots > 0; }
  const HybridCacheStats& stats() const { return stats_; }
  // A sequence over the longest usable cached prefix of `prompt`, at most all but its last token.
  CachedSequence open(std::span<const int32_t> prompt);
  // Pages for `length` tokens. RETURNS: false, and changes nothing, when there are not enough.
  bool grow(CachedSequence& sequence, int64_t length);
  // Slots for the next step, which advance concludes; the slot written is never one that the tree keeps.
  // RETURNS: false, and changes nothing, when no slot can be had. Without states both are -1.
  bool prepare_slots(CachedSequence& sequence, StepSlots& slots);
  // The furthest position at or before `end` at which the next prefill chunk should end, so that a snapshot
  // can be left there.
  int64_t chunk_end(const CachedSequence& sequence, int64_t prompt_length, int64_t end) const;
  // `tokens` are computed, the sequence's whole text so far: full pages join the tree and, at the positions
  // of chunk_end and at the last page boundary while generating, the state stays behind.
  void advance(CachedSequence& sequence, std::span<const int32_t> tokens, int64_t prompt_length);
  // Gives everything back; what is in the tree stays cached.
  void close(CachedSequence& sequence);

  // Forgets what no sequence uses.
  void clear() { tree_.clear(); }

  // `open_sequences`: all of them. THROWS: InternalError when a page or slot is lost or owned twice.
  void check_integrity(std::span<const CachedSequence* const> open_sequences) const;

 private:
  bool take_page(int32_t& page);
  bool take_slot(int32_t& slot);
  bool choose_slot(CachedSequence& sequence);
  void take_over_slot(CachedSequence& sequence);
  bool is_snapshot_position(int64_t length, int64_t prompt_length) const;
  void leave_snapshot(CachedSequence& sequence, int64_t prompt_length);

  HybridCacheOptions options_;
  IndexPool pages_;
  IndexPool slots_;
  PrefixTree tree_;
  HybridCacheStats stats_;
};

}  // namespace minimax::cache
