// The tree of cached pages: a node is one full page of tokens after its parent's, with the page that holds
// their keys and values and, for models with linear attention, possibly the state after its last token, in a
// slot of the device, of the host's memory, or both.
//
// Nodes are found by their tokens, so a match can never be wrong. A running sequence pins the deepest node it
// uses, which protects the path to it, since only leaves are evicted: unpinned ones, least recently used
// first. Snapshots have orders of their own: one can go while its page stays. Host logic; one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "cache/index_pool.h"

namespace minimax::cache {

struct PrefixNode {
  PrefixNode* parent = nullptr;
  std::vector<int32_t> tokens;  // [page_size]; empty at the root
  int64_t depth = 0;            // pages from the root, this one included
  int32_t page = -1;
  int32_t slot = -1;       // state after the last token, -1 for none
  int32_t host_slot = -1;  // the same in host memory
  int64_t pins = 0;        // sequences whose deepest node it is
  uint64_t page_use = 0;
  uint64_t slot_use = 0;
  uint64_t host_use = 0;

  bool has_snapshot() const { return slot >= 0 || host_slot >= 0; }
  std::map<std::vector<int32_t>, std::unique_ptr<PrefixNode>> children;
};

class PrefixTree {
 public:
  // The tree holds each of its pages and slots once. REQUIRES: the pools outlive it.
  PrefixTree(int64_t page_size, IndexPool& pages, IndexPool& slots, IndexPool& host_slots);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  int64_t page_size() const { return page_size_; }
  int64_t num_pages() const { return num_pages_; }
  int64_t num_snapshots() const { return static_cast<int64_t>(snapshots_.size()); }
  int64_t num_host_snapshots() const { return static_cast<int64_t>(host_snapshots_.size()); }

  // The deepest node whose path spells leading pages of `tokens`; the root when there is none.
  PrefixNode* find(std::span<const int32_t> tokens);
  // The child of `node` for the page `tokens`, made with `page` when there is none.
  // RETURNS: the node, and whether it took `page`. REQUIRES: tokens.size() == page_size.
  std::pair<PrefixNode*, bool> insert(PrefixNode* node, std::span<const int32_t> tokens, int32_t page);

  // Marks `node` as the deepest one of one more, or one less, sequence.
  void pin(PrefixNode* node);
  void unpin(PrefixNode* node);

  // Keeps `slot` as the state after `node`, in place of an older one.
  void set_snapshot(PrefixNode* node, int32_t slot);
  void drop_snapshot(PrefixNode* node);
  // The same for the copy in host memory. REQUIRES: none there yet; the tree takes the caller's hold.
  void set_host_snapshot(PrefixNode* node, int32_t host_slot);
  void drop_host_snapshot(PrefixNode* node);
  void touch_snapshot(PrefixNode* node);

  // Frees the least recently used page that no sequence uses. RETURNS: false when there is none.
  bool evict_page();
  // The node of the least recently used snapshot that no sequence reads, null when there is none.
  PrefixNode* oldest_snapshot() const;
  PrefixNode* oldest_host_snapshot() const;
  // Snapshots that no sequence reads, counted up to `most`.
  int64_t num_unread_snapshots(int64_t most) const;

  // Forgets everything that no sequence uses.
  void clear();

  // THROWS: InternalError when nodes, orders and pools disagree.
  void check_integrity() const;

 private:
  using Order = std::set<std::pair<uint64_t, PrefixNode*>>;

  bool is_evictable(const PrefixNode& node) const {
    return node.parent != nullptr && node.pins == 0 && node.children.empty();
  }
  // Takes the node out of the order of evictable leaves, or puts it back in if it still belongs there.
  void forget_order(PrefixNode* node) { leaves_.erase({node->page_use, node}); }
  void restore_order(PrefixNode* node);

  int64_t page_size_;
  IndexPool& pages_;
  IndexPool& slots_;
  IndexPool& host_slots_;
  PrefixNode root_;
  Order leaves_;          // evictable, by page_use
  Order snapshots_;       // nodes with a slot, by slot_use
  Order host_snapshots_;  // nodes with a host slot, by host_use
  int64_t num_pages_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace minimax::cache
