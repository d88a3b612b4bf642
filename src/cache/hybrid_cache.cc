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
      tree_(options.page_size, pages_, slots_) {
  MM_CHECK(options.snapshot_interval >= options.page_size, "snapshot interval {} below the page size {}",
           options.snapshot_interval, options.page_size);
}

CachedSequence HybridCache::open(std::span<const int32_t> prompt) {
  CachedSequence sequence;
  ++stats_.queries;
  stats_.query_tokens += static_cast<int64_t>(prompt.size());
  if (!options_.share_prefixes) {
    sequence.node = tree_.find({});
    sequence.reason = MissReason::kDisabled;
    tree_.pin(sequence.node);
    return sequence;
  }
  // The last token is computed in any case: its logits are wanted.
  PrefixNode* node = tree_.find(prompt.first(prompt.empty() ? 0 : prompt.size() - 1));
  sequence.node = node;
  tree_.pin(node);
  for (PrefixNode* n = node; n->parent != nullptr; n = n->parent) {
    sequence.pages.push_back(n->page);
    pages_.retain(n->page);
  }
  std::reverse(sequence.pages.begin(), sequence.pages.end());
  sequence.num_shared = node->depth;

  PrefixNode* start = node;
  while (has_states() && start->parent != nullptr && start->slot < 0) start = start->parent;
  sequence.length = start->depth * options_.page_size;
  if (has_states() && start->slot >= 0) {
    sequence.slot = start->slot;
    slots_.retain(start->slot);
    tree_.touch_snapshot(start);
  }
  const auto wanted = static_cast<int64_t>(prompt.size()) - 1;
  const bool all_pages = (node->depth + 1) * options_.page_size > wanted;
  sequence.reason = start != node ? MissReason::kNoSnapshot
                    : all_pages   ? MissReason::kNone
                                  : MissReason::kNew;
  stats_.page_hit_tokens += node->depth * options_.page_size;
  stats_.hit_tokens += sequence.length;
  return sequence;
}

bool HybridCache::take_page(int32_t& page) {
  auto taken = pages_.take();
  if (!taken) {
    // Evicted pages that a sequence still holds free nothing, but only unpinned ones are evicted.
    while (!taken && tree_.evict_page()) {
      ++stats_.evicted_pages;
      taken = pages_.take();
    }
  }
  if (!taken) return false;
  page = *taken;
  return true;
}

bool HybridCache::take_slot(int32_t& slot) {
  auto taken = slots_.take();
  while (!taken && tree_.evict_snapshot()) {
    ++stats_.evicted_snapshots;
    taken = slots_.take();
  }
  if (!taken) return false;
  slot = *taken;
  return true;
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

bool HybridCache::prepare_slots(CachedSequence& sequence, StepSlots& slots) {
  slots = {};
  if (!has_states()) return true;
  if (sequence.next_slot < 0 && !choose_slot(sequence)) return false;
  slots = {sequence.slot, sequence.next_slot};
  return true;
}

bool HybridCache::choose_slot(CachedSequence& sequence) {
  const auto is_own = [&] { return sequence.slot >= 0 && slots_.holders(sequence.slot) == 1; };
  if (!is_own() && take_slot(sequence.next_slot)) return true;
  // Without a second slot the snapshot just left is given up: one slot is enough to go on.
  if (!is_own() && sequence.slot >= 0 && sequence.node->slot == sequence.slot) {
    tree_.drop_snapshot(sequence.node);
  }
  if (!is_own()) return false;
  sequence.next_slot = sequence.slot;
  return true;
}

void HybridCache::take_over_slot(CachedSequence& sequence) {
  if (sequence.next_slot < 0) return;
  if (sequence.slot >= 0 && sequence.slot != sequence.next_slot) slots_.release(sequence.slot);
  sequence.slot = sequence.next_slot;
  sequence.next_slot = -1;
}

bool HybridCache::is_snapshot_position(int64_t length, int64_t prompt_length) const {
  if (length % options_.page_size != 0) return false;
  const int64_t prompt_end = (prompt_length - 1) / options_.page_size * options_.page_size;
  return length == prompt_end || length % options_.snapshot_interval == 0;
}

int64_t HybridCache::chunk_end(const CachedSequence& sequence, int64_t prompt_length, int64_t end) const {
  if (!has_states() || !options_.share_prefixes) return end;
  const int64_t prompt_end = (prompt_length - 1) / options_.page_size * options_.page_size;
  const int64_t next_multiple =
      (sequence.length / options_.snapshot_interval + 1) * options_.snapshot_interval;
  for (const int64_t position : {next_multiple, prompt_end}) {
    if (position > sequence.length && position < end) end = position;
  }
  return end;
}

void HybridCache::leave_snapshot(CachedSequence& sequence, int64_t prompt_length) {
  const int64_t length = sequence.length;
  if (!has_states() || length == 0 || length != sequence.node->depth * options_.page_size) return;
  const bool is_generating = length >= prompt_length;
  if (!is_generating && !is_snapshot_position(length, prompt_length)) return;
  if (sequence.node->slot < 0) tree_.set_snapshot(sequence.node, sequence.slot);
  if (!is_generating) return;
  // While generating only the newest boundary is kept: the end of the turn.
  if (sequence.turn != nullptr && sequence.turn != sequence.node) tree_.drop_snapshot(sequence.turn);
  sequence.turn = sequence.node;
}

void HybridCache::advance(CachedSequence& sequence, std::span<const int32_t> tokens, int64_t prompt_length) {
  sequence.length = static_cast<int64_t>(tokens.size());
  take_over_slot(sequence);
  if (!options_.share_prefixes) return;
  const int64_t full_pages = sequence.length / options_.page_size;
  while (sequence.node->depth < full_pages) {
    const int64_t page = sequence.node->depth;
    const auto content = tokens.subspan(static_cast<size_t>(page * options_.page_size),
                                        static_cast<size_t>(options_.page_size));
    const auto [child, is_new] =
        tree_.insert(sequence.node, content, sequence.pages[static_cast<size_t>(page)]);
    if (!is_new && child->page != sequence.pages[static_cast<size_t>(page)]) {
      // Another sequence was first with the same tokens: go on with its page, ours is free again.
      pages_.retain(child->page);
      pages_.release(sequence.pages[static_cast<size_t>(page)]);
      sequence.pages[static_cast<size_t>(page)] = child->page;
    }
    tree_.pin(child);
    tree_.unpin(sequence.node);
    sequence.node = child;
  }
  leave_snapshot(sequence, prompt_length);
}

void HybridCache::close(CachedSequence& sequence) {
  if (sequence.node != nullptr) tree_.unpin(sequence.node);
  for (const int32_t page : sequence.pages) pages_.release(page);
  if (sequence.next_slot >= 0 && sequence.next_slot != sequence.slot) slots_.release(sequence.next_slot);
  if (sequence.slot >= 0) slots_.release(sequence.slot);
  sequence = {};
}

void HybridCache::check_integrity(std::span<const CachedSequence* const> open_sequences) const {
  pages_.check_integrity();
  slots_.check_integrity();
  tree_.check_integrity();
  int64_t page_holds = tree_.num_pages();
  int64_t slot_holds = tree_.num_snapshots();
  for (const CachedSequence* sequence : open_sequences) {
    page_holds += static_cast<int64_t>(sequence->pages.size());
    slot_holds += sequence->slot >= 0 ? 1 : 0;
    slot_holds += sequence->next_slot >= 0 && sequence->next_slot != sequence->slot ? 1 : 0;
  }
  MM_CHECK(pages_.num_holds() == page_holds, "pages are held {} times, known holders are {}",
           pages_.num_holds(), page_holds);
  MM_CHECK(slots_.num_holds() == slot_holds, "slots are held {} times, known holders are {}",
           slots_.num_holds(), slot_holds);
}

}  // namespace minimax::cache
