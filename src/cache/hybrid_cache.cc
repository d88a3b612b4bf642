#include "cache/hybrid_cache.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::cache {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::string_view name(MissReason reason) {
  switch (reason) {
    case MissReason::kNone:
      return "none";
    case MissReason::kNew:
      return "new";
    case MissReason::kNoSnapshot:
      return "no snapshot";
    case MissReason::kDisabled:
      return "disabled";
  }
  return "?";
}

HybridCache::HybridCache(const HybridCacheOptions& options)
    : options_(options),
      pages_(options.num_pages),
      slots_(options.num_slots),
      host_slots_(options.num_slots > 0 ? options.num_host_slots : 0),
      tree_(options.page_size, pages_, slots_, host_slots_) {
  MM_CHECK(grain() % options.page_size == 0, "prompt grid {} is no multiple of the page size {}",
           options.prompt_grid, options.page_size);
  MM_CHECK(options.snapshot_interval >= grain() && options.snapshot_interval % grain() == 0,
           "snapshot interval {} is no multiple of {}", options.snapshot_interval, grain());
}

CachedSequence HybridCache::open(const OpenRequest& request) {
  CachedSequence sequence;
  sequence.prompt_length = request.prompt_length;
  sequence.pages_stamp = ++next_stamp_;
  sequence.node = tree_.find({});
  sequence.reason = MissReason::kDisabled;
  if (options_.share_prefixes && request.match) {
    // The last token is computed in any case: its logits are wanted.
    size_t usable = request.tokens.empty() ? 0 : request.tokens.size() - 1;
    if (options_.prompt_grid > 0) usable = std::min(usable, static_cast<size_t>(request.prompt_length));
    sequence.node = tree_.find(request.tokens.first(usable));
    while (sequence.node->depth * options_.page_size % grain() != 0) sequence.node = sequence.node->parent;
    take_start(sequence);
    const bool all_pages = sequence.node->depth * options_.page_size + grain() > static_cast<int64_t>(usable);
    sequence.reason = sequence.length < sequence.num_shared * options_.page_size ? MissReason::kNoSnapshot
                      : all_pages                                                ? MissReason::kNone
                                                                                 : MissReason::kNew;
  }
  tree_.pin(sequence.node);
  plan_snapshots(sequence, request);
  return sequence;
}

void HybridCache::take_start(CachedSequence& sequence) {
  for (PrefixNode* node = sequence.node; node->parent != nullptr; node = node->parent) {
    sequence.pages.push_back(node->page);
    pages_.retain(node->page);
  }
  std::reverse(sequence.pages.begin(), sequence.pages.end());
  sequence.num_shared = sequence.node->depth;

  PrefixNode* start = sequence.node;
  while (has_states() && start->parent != nullptr && !start->has_snapshot()) start = start->parent;
  if (start->parent == nullptr) return;
  if (has_states() && !load_snapshot(sequence, start)) return;
  sequence.start = start->depth * options_.page_size;
  sequence.length = sequence.start;
}

bool HybridCache::load_snapshot(CachedSequence& sequence, PrefixNode* node) {
  tree_.touch_snapshot(node);
  if (node->slot >= 0) {
    sequence.slot = node->slot;
    slots_.retain(node->slot);
    return true;
  }
  // Making room must not spill: the host slot given up could be the one to load from.
  if (!take_slot(sequence.slot, false)) return false;
  copies_.push_back({StateCopy::Direction::kToDevice, sequence.slot, node->host_slot});
  sequence.is_from_host = true;
  return true;
}

void HybridCache::plan_snapshots(CachedSequence& sequence, const OpenRequest& request) const {
  if (!has_states() || !options_.share_prefixes) return;
  auto& positions = sequence.snapshot_at;
  for (const int64_t boundary : request.boundaries) positions.push_back(boundary / grain() * grain());
  positions.push_back(prompt_end(request.prompt_length));
  // Where known pages end without a state, texts part: the next one that does will start there.
  positions.push_back(sequence.num_shared * options_.page_size);
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
}

void HybridCache::count_query(const CachedSequence& sequence, int64_t num_tokens) {
  ++stats_.queries;
  stats_.query_tokens += num_tokens;
  stats_.page_hit_tokens += sequence.num_shared * options_.page_size;
  stats_.hit_tokens += sequence.start;
  stats_.misses_new += sequence.reason == MissReason::kNew ? 1 : 0;
  stats_.misses_no_snapshot += sequence.reason == MissReason::kNoSnapshot ? 1 : 0;
  stats_.host_hits += sequence.is_from_host ? 1 : 0;
}

bool HybridCache::take_page(int32_t& page) {
  auto taken = pages_.take();
  // An evicted page is free at once: only unpinned ones are evicted.
  while (!taken && tree_.evict_page()) {
    ++stats_.evicted_pages;
    taken = pages_.take();
  }
  if (!taken) return false;
  page = *taken;
  return true;
}

bool HybridCache::take_slot(int32_t& slot, bool spills) {
  auto taken = slots_.take();
  if (!taken) {
    PrefixNode* oldest = tree_.oldest_snapshot();
    if (oldest == nullptr) return false;
    if (spills) spill(oldest);
    tree_.drop_snapshot(oldest);
    ++stats_.evicted_snapshots;
    taken = slots_.take();
  }
  slot = taken.value();
  return true;
}

void HybridCache::spill(PrefixNode* node) {
  if (host_slots_.size() == 0 || node->host_slot >= 0) return;
  if (host_slots_.num_free() == 0) tree_.drop_host_snapshot(tree_.oldest_host_snapshot());
  const int32_t host_slot = host_slots_.take().value();
  copies_.push_back({StateCopy::Direction::kToHost, node->slot, host_slot});
  tree_.set_host_snapshot(node, host_slot);
  ++stats_.spilled_snapshots;
}

bool HybridCache::grow(CachedSequence& sequence, int64_t length) {
  const int64_t wanted = ceil_div(length, options_.page_size);
  const size_t before = sequence.pages.size();
  while (static_cast<int64_t>(sequence.pages.size()) < wanted) {
    int32_t page = -1;
    if (!take_page(page)) {
      while (sequence.pages.size() > before) {
        pages_.release(sequence.pages.back());
        sequence.pages.pop_back();
      }
      return false;
    }
    sequence.pages.push_back(page);
  }
  return true;
}

bool HybridCache::is_own(const CachedSequence& sequence) const {
  return sequence.slot >= 0 && slots_.holders(sequence.slot) == 1;
}

PrefixNode* HybridCache::node_at(const CachedSequence& sequence, int64_t length) const {
  PrefixNode* node = sequence.node;
  while (node->depth * options_.page_size > length) node = node->parent;
  return node;
}

void HybridCache::give_up_snapshot(CachedSequence& sequence) {
  auto& waiting = sequence.unpublished;
  if (!waiting.empty() && waiting.back().slot == sequence.slot) {
    slots_.release(sequence.slot);
    waiting.pop_back();
    return;
  }
  PrefixNode* node = node_at(sequence, sequence.length);
  if (sequence.slot >= 0 && node->slot == sequence.slot) tree_.drop_snapshot(node);
}

bool HybridCache::choose_slot(CachedSequence& sequence, int32_t& slot) {
  if (!is_own(sequence) && take_slot(slot)) return true;
  // Without a second slot the snapshot just left is given up: one slot is enough to go on.
  if (!is_own(sequence)) give_up_snapshot(sequence);
  if (is_own(sequence)) {
    slot = sequence.slot;
    return true;
  }
  // So is the newest checkpoint: what its step leaves there is overwritten in its turn.
  auto& waiting = sequence.unpublished;
  if (waiting.empty() || slots_.holders(waiting.back().slot) > 1) return false;
  slot = waiting.back().slot;
  waiting.pop_back();
  return true;
}

bool HybridCache::begin_step(CachedSequence& sequence, int64_t end, StepSlots& slots) {
  slots = {};
  if (has_states()) {
    if (!choose_slot(sequence, slots.write)) return false;
    slots.read = sequence.slot;
    if (sequence.read_slot >= 0) slots_.release(sequence.read_slot);
    sequence.read_slot = slots.read == slots.write ? -1 : slots.read;
    sequence.slot = slots.write;
    take_checkpoints(sequence, end, slots);
  }
  sequence.length = end;
  if (leaves_snapshot(sequence, end)) {
    slots_.retain(sequence.slot);
    sequence.unpublished.push_back({end, sequence.slot});
  }
  return true;
}

bool HybridCache::leaves_snapshot(const CachedSequence& sequence, int64_t length) const {
  if (!has_states() || !options_.share_prefixes || length % grain() != 0) return false;
  if (length >= sequence.prompt_length) return options_.prompt_grid == 0 || length == sequence.prompt_length;
  return length % options_.snapshot_interval == 0 ||
         std::binary_search(sequence.snapshot_at.begin(), sequence.snapshot_at.end(), length);
}

// The last one is for a sequence that cannot begin without.
bool HybridCache::has_slots_to_spare(int64_t count) const {
  return slots_.num_free() + tree_.num_unread_snapshots(count + 1) > count;
}

int64_t HybridCache::next_snapshot(const CachedSequence& sequence, int64_t length) const {
  const int64_t interval = options_.snapshot_interval;
  const int64_t next = (length / interval + 1) * interval;
  const auto& positions = sequence.snapshot_at;
  const auto own = std::upper_bound(positions.begin(), positions.end(), length);
  return own == positions.end() ? next : std::min(next, *own);
}

int64_t HybridCache::chunk_end(const CachedSequence& sequence, int64_t end) const {
  if (!has_states() || !options_.share_prefixes) return end;
  const int inside = has_slots_to_spare(is_own(sequence) ? 1 : 2) ? StepSlots::kMostCheckpoints : 0;
  int64_t last = sequence.length;  // that the step leaves, inside or at its end
  for (int i = 0; i <= inside && last < end; ++i) last = next_snapshot(sequence, last);
  return std::min(last, end);
}

void HybridCache::take_checkpoints(CachedSequence& sequence, int64_t end, StepSlots& slots) {
  if (!options_.share_prefixes) return;
  for (int64_t at = next_snapshot(sequence, sequence.length);
       at < end && slots.num_checkpoints < StepSlots::kMostCheckpoints; at = next_snapshot(sequence, at)) {
    int32_t slot = -1;
    if (!leaves_snapshot(sequence, at)) continue;
    if (!has_slots_to_spare(1) || !take_slot(slot)) return;
    const CachedSequence::Snapshot checkpoint{at, slot};
    slots.checkpoints[static_cast<size_t>(slots.num_checkpoints++)] = checkpoint;
    sequence.unpublished.push_back(checkpoint);
  }
}

void HybridCache::insert_pages(CachedSequence& sequence, std::span<const int32_t> tokens) {
  auto length = static_cast<int64_t>(tokens.size());
  if (options_.prompt_grid > 0) length = std::min(length, sequence.prompt_length) / grain() * grain();
  while (sequence.node->depth < length / options_.page_size) {
    const int64_t index = sequence.node->depth;
    const auto content = tokens.subspan(static_cast<size_t>(index * options_.page_size),
                                        static_cast<size_t>(options_.page_size));
    int32_t& page = sequence.pages[static_cast<size_t>(index)];
    const auto [child, is_new] = tree_.insert(sequence.node, content, page);
    if (!is_new && child->page != page) {
      // Another sequence was first with the same tokens: go on with its page, ours is free again.
      pages_.retain(child->page);
      pages_.release(page);
      page = child->page;
      sequence.pages_stamp = ++next_stamp_;
    }
    tree_.pin(child);
    tree_.unpin(sequence.node);
    sequence.node = child;
  }
}

void HybridCache::publish_snapshot(CachedSequence& sequence, const CachedSequence::Snapshot& snapshot) {
  PrefixNode* node = node_at(sequence, snapshot.length);
  if (node->depth * options_.page_size == snapshot.length && node->slot < 0) {
    tree_.set_snapshot(node, snapshot.slot);
    // While generating only the newest boundary is kept: the end of the turn.
    if (snapshot.length >= sequence.prompt_length) {
      if (sequence.turn != nullptr) tree_.drop_snapshot(sequence.turn);
      sequence.turn = node;
    }
  }
  slots_.release(snapshot.slot);
}

void HybridCache::publish(CachedSequence& sequence, std::span<const int32_t> tokens) {
  if (!options_.share_prefixes) return;
  insert_pages(sequence, tokens);
  auto& waiting = sequence.unpublished;
  while (!waiting.empty() && waiting.front().length <= static_cast<int64_t>(tokens.size())) {
    publish_snapshot(sequence, waiting.front());
    waiting.erase(waiting.begin());
  }
}

void HybridCache::close(CachedSequence& sequence) {
  if (sequence.node != nullptr) tree_.unpin(sequence.node);
  for (const int32_t page : sequence.pages) pages_.release(page);
  for (const auto& snapshot : sequence.unpublished) slots_.release(snapshot.slot);
  if (sequence.read_slot >= 0) slots_.release(sequence.read_slot);
  if (sequence.slot >= 0) slots_.release(sequence.slot);
  sequence = {};
}

void HybridCache::check_integrity(std::span<const CachedSequence* const> open_sequences) const {
  pages_.check_integrity();
  slots_.check_integrity();
  host_slots_.check_integrity();
  tree_.check_integrity();
  int64_t page_holds = tree_.num_pages();
  int64_t slot_holds = tree_.num_snapshots();
  for (const CachedSequence* sequence : open_sequences) {
    page_holds += static_cast<int64_t>(sequence->pages.size());
    slot_holds += static_cast<int64_t>(sequence->unpublished.size());
    slot_holds += (sequence->slot >= 0 ? 1 : 0) + (sequence->read_slot >= 0 ? 1 : 0);
  }
  MM_CHECK(pages_.num_holds() == page_holds, "pages are held {} times, known holders are {}",
           pages_.num_holds(), page_holds);
  MM_CHECK(slots_.num_holds() == slot_holds, "slots are held {} times, known holders are {}",
           slots_.num_holds(), slot_holds);
}

}  // namespace minimax::cache
