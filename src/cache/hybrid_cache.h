// Pages and state slots of running sequences over one prefix cache: who reads and writes which page and slot.
//
// Keys and values of full pages are shared. A linear state cannot be cut, so what is shared of it are
// snapshots: the state after a page. One at the end of a step is left behind in its slot while the sequence
// goes on in another one (the slot read and the slot written differ for one step; nothing is copied); one
// inside a step is left in a slot of its own, as a checkpoint of that step. A sequence can therefore start
// from the deepest matching page that has a snapshot. The matching pages beyond it are kept: their tokens run
// through the layers again to rebuild the state, and write no keys and values.
//
// Steps are planned ahead of the device: begin_step gives a step its slots and moves the sequence on, publish
// puts the pages into the tree once the step is done and its tokens are known. Steps run in the order in
// which they were begun, so what is released between the two may be given away again at once.
//
// A snapshot that must make room moves to a slot in host memory where there is one; take_copies says which
// states to copy before the next step. Invariant: every page and slot is held by the tree, by sequences, or
// free (check_integrity). Host logic, deterministic, one thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/index_pool.h"
#include "cache/prefix_tree.h"

namespace minimax::cache {

struct HybridCacheOptions {
  int64_t page_size = 16;
  int64_t num_pages = 0;
  int64_t num_slots = 0;             // 0: the model keeps no states
  int64_t num_host_slots = 0;        // snapshots in host memory
  int64_t snapshot_interval = 8192;  // tokens between snapshots inside a long prompt
  bool share_prefixes = true;
  // Only prefixes of a multiple of this many prompt tokens are shared, and no generated ones; 0: any page.
  // For runs in which a page must not depend on how its tokens were cut into steps.
  int64_t prompt_grid = 0;
};

// Why a sequence starts behind its prompt's end.
enum class MissReason : uint8_t {
  kNone,        // all but the last page's worth, which must be computed for the logits of the last token
  kNew,         // the pages were never seen, or are evicted
  kNoSnapshot,  // the pages are there, the state is not
  kDisabled,
};
std::string_view name(MissReason reason);

struct OpenRequest {
  std::span<const int32_t> tokens;  // the prompt, and what was generated before a preemption
  int64_t prompt_length = 0;
  std::span<const int64_t> boundaries{};  // positions where a prefix may end that others will share
  bool match = true;                      // false: compute every token
};

// What a sequence holds. Made by HybridCache::open; the cache alone changes it.
struct CachedSequence {
  struct Snapshot {
    int64_t length = 0;
    int32_t slot = -1;  // the state after `length` tokens
  };

  std::vector<int32_t> pages;  // in the order of the sequence
  int64_t pages_stamp = 0;     // changes whenever a page in `pages` is replaced, not when one is added
  int64_t num_shared = 0;      // leading pages that came from the tree: never written
  int64_t start = 0;           // tokens that needed no computing
  int64_t length = 0;          // tokens computed once all steps begun are done
  int32_t slot = -1;           // state after `length` tokens; -1 for none (length 0)
  int32_t read_slot = -1;      // what the newest step reads when it writes another slot, held until the next
  PrefixNode* node = nullptr;  // deepest node of the tree on this sequence's path, pinned
  PrefixNode* turn = nullptr;  // node with the newest snapshot made while generating
  MissReason reason = MissReason::kNone;
  bool is_from_host = false;  // the state came from host memory
  int64_t prompt_length = 0;
  std::vector<int64_t> snapshot_at;  // positions of the request's own snapshots, ascending
  std::vector<Snapshot> unpublished;
};

// Slots of one step of a sequence.
struct StepSlots {
  static constexpr int kMostCheckpoints = 4;

  int32_t read = -1;  // -1: start from zero
  int32_t write = -1;
  // States inside the step to be left in a slot each, by ascending length.
  std::array<CachedSequence::Snapshot, kMostCheckpoints> checkpoints{};
  int num_checkpoints = 0;
};

// A state to copy before the next step, in the order given.
struct StateCopy {
  enum class Direction : uint8_t { kToHost, kToDevice };
  Direction direction = Direction::kToHost;
  int32_t device_slot = -1;
  int32_t host_slot = -1;
};

struct HybridCacheStats {
  int64_t queries = 0;
  int64_t query_tokens = 0;
  int64_t page_hit_tokens = 0;  // tokens whose keys and values were there
  int64_t hit_tokens = 0;       // tokens that need no computing
  int64_t misses_new = 0;       // queries by MissReason
  int64_t misses_no_snapshot = 0;
  int64_t host_hits = 0;  // queries that took their state from host memory
  int64_t evicted_pages = 0;
  int64_t evicted_snapshots = 0;
  int64_t spilled_snapshots = 0;
};

class HybridCache {
 public:
  explicit HybridCache(const HybridCacheOptions& options);

  const HybridCacheOptions& options() const { return options_; }
  bool has_states() const { return options_.num_slots > 0; }
  const HybridCacheStats& stats() const { return stats_; }
  // Pages that sequences hold; all others are free or could be evicted. Those of a sequence are held once,
  // and once more when they are in the tree.
  int64_t num_pages_in_use() const {
    return pages_.size() - pages_.num_free() - tree_.num_pages() + pages_.num_shared();
  }
  int64_t num_free_pages() const { return pages_.num_free(); }
  int64_t num_free_slots() const { return slots_.num_free(); }
  int64_t num_cached_pages() const { return tree_.num_pages(); }
  int64_t num_snapshots() const { return tree_.num_snapshots(); }
  int64_t num_host_snapshots() const { return tree_.num_host_snapshots(); }

  // A sequence over the longest usable cached prefix, at most all but its last token.
  CachedSequence open(const OpenRequest& request);
  // Counts an open as a query: not every sequence opened is admitted.
  void count_query(const CachedSequence& sequence, int64_t num_tokens);
  // Pages for `length` tokens. RETURNS: false, and changes nothing, when there are not enough.
  bool grow(CachedSequence& sequence, int64_t length);
  // Begins a step that computes the tokens up to `end`; the slot written is never one that the tree keeps.
  // RETURNS: false, and changes nothing, when no slot can be had. Without states both are -1. Checkpoints for
  // which there is no slot are left out.
  // REQUIRES: `end` is at most what chunk_end gave, and pages up to it.
  bool begin_step(CachedSequence& sequence, int64_t end, StepSlots& slots);
  // The furthest position at or before `end` at which the next step should end: it can leave so many
  // snapshots and no more.
  int64_t chunk_end(const CachedSequence& sequence, int64_t end) const;
  // `tokens`, the sequence's text up to a step's end, are computed: full pages join the tree, and so do the
  // states left behind.
  void publish(CachedSequence& sequence, std::span<const int32_t> tokens);
  // Gives everything back; what is in the tree stays cached.
  void close(CachedSequence& sequence);

  // States to copy before the next step, handed out once.
  std::vector<StateCopy> take_copies() { return std::exchange(copies_, {}); }

  // Forgets what no sequence uses.
  void clear() { tree_.clear(); }

  // `open_sequences`: all of them. THROWS: InternalError when a page or slot is lost or owned twice.
  void check_integrity(std::span<const CachedSequence* const> open_sequences) const;

 private:
  // Shared prefixes end at multiples of it.
  int64_t grain() const { return options_.prompt_grid > 0 ? options_.prompt_grid : options_.page_size; }
  int64_t prompt_end(int64_t prompt_length) const { return (prompt_length - 1) / grain() * grain(); }
  void plan_snapshots(CachedSequence& sequence, const OpenRequest& request) const;
  void take_start(CachedSequence& sequence);
  bool load_snapshot(CachedSequence& sequence, PrefixNode* node);
  bool take_page(int32_t& page);
  bool take_slot(int32_t& slot, bool spills = true);
  void spill(PrefixNode* node);
  bool choose_slot(CachedSequence& sequence, int32_t& slot);
  void give_up_snapshot(CachedSequence& sequence);
  bool is_own(const CachedSequence& sequence) const;
  // The deepest node of its path with at most `length` tokens.
  PrefixNode* node_at(const CachedSequence& sequence, int64_t length) const;
  bool leaves_snapshot(const CachedSequence& sequence, int64_t length) const;
  // The first position beyond `length` at which a prompt leaves a snapshot.
  int64_t next_snapshot(const CachedSequence& sequence, int64_t length) const;
  bool has_slots_to_spare(int64_t count) const;
  void take_checkpoints(CachedSequence& sequence, int64_t end, StepSlots& slots);
  void insert_pages(CachedSequence& sequence, std::span<const int32_t> tokens);
  void publish_snapshot(CachedSequence& sequence, const CachedSequence::Snapshot& snapshot);

  HybridCacheOptions options_;
  IndexPool pages_;
  IndexPool slots_;
  IndexPool host_slots_;
  PrefixTree tree_;
  std::vector<StateCopy> copies_;
  int64_t next_stamp_ = 0;
  HybridCacheStats stats_;
};

}  // namespace minimax::cache
