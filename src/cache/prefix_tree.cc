#include "cache/prefix_tree.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::cache {
namespace {

std::vector<int32_t> page_of(std::span<const int32_t> tokens, int64_t page, int64_t page_size) {
  const auto part = tokens.subspan(static_cast<size_t>(page * page_size), static_cast<size_t>(page_size));
  return {part.begin(), part.end()};
}

}  // namespace

PrefixTree::PrefixTree(int64_t page_size, IndexPool& pages, IndexPool& slots, IndexPool& host_slots)
    : page_size_(page_size), pages_(pages), slots_(slots), host_slots_(host_slots) {
  MM_CHECK(page_size > 0, "page size {}", page_size);
}

// A million tokens are a path of thousands of nodes, which must not be destroyed by recursion.
PrefixTree::~PrefixTree() {
  std::vector<std::unique_ptr<PrefixNode>> doomed;
  const auto adopt = [&doomed](PrefixNode& node) {
    for (auto& [tokens, child] : node.children) doomed.push_back(std::move(child));
    node.children.clear();
  };
  adopt(root_);
  while (!doomed.empty()) {
    const std::unique_ptr<PrefixNode> node = std::move(doomed.back());
    doomed.pop_back();
    adopt(*node);
  }
}

PrefixNode* PrefixTree::find(std::span<const int32_t> tokens) {
  PrefixNode* node = &root_;
  const auto full_pages = static_cast<int64_t>(tokens.size()) / page_size_;
  for (int64_t page = 0; page < full_pages; ++page) {
    const auto child = node->children.find(page_of(tokens, page, page_size_));
    if (child == node->children.end()) break;
    node = child->second.get();
  }
  return node;
}

std::pair<PrefixNode*, bool> PrefixTree::insert(PrefixNode* node, std::span<const int32_t> tokens,
                                                int32_t page) {
  MM_CHECK(static_cast<int64_t>(tokens.size()) == page_size_, "{} tokens for a page of {}", tokens.size(),
           page_size_);
  forget_order(node);
  const auto [entry, is_new] = node->children.try_emplace({tokens.begin(), tokens.end()}, nullptr);
  if (is_new) {
    entry->second = std::make_unique<PrefixNode>();
    PrefixNode& child = *entry->second;
    child.parent = node;
    child.tokens = entry->first;
    child.depth = node->depth + 1;
    child.page = page;
    child.page_use = ++clock_;
    pages_.retain(page);
    ++num_pages_;
    restore_order(&child);
  }
  restore_order(node);
  return {entry->second.get(), is_new};
}

void PrefixTree::restore_order(PrefixNode* node) {
  if (is_evictable(*node)) leaves_.insert({node->page_use, node});
}

void PrefixTree::pin(PrefixNode* node) {
  forget_order(node);
  ++node->pins;
}

void PrefixTree::unpin(PrefixNode* node) {
  MM_CHECK(node->pins > 0, "a node of depth {} is not pinned", node->depth);
  --node->pins;
  node->page_use = ++clock_;
  restore_order(node);
}

void PrefixTree::set_snapshot(PrefixNode* node, int32_t slot) {
  MM_CHECK(node->parent != nullptr, "the root has no state");
  slots_.retain(slot);
  drop_snapshot(node);
  node->slot = slot;
  node->slot_use = ++clock_;
  snapshots_.insert({node->slot_use, node});
}

void PrefixTree::drop_snapshot(PrefixNode* node) {
  if (node->slot < 0) return;
  snapshots_.erase({node->slot_use, node});
  slots_.release(node->slot);
  node->slot = -1;
}

void PrefixTree::set_host_snapshot(PrefixNode* node, int32_t host_slot) {
  MM_CHECK(node->parent != nullptr && node->host_slot < 0, "host slot {} for a node with {}", host_slot,
           node->host_slot);
  node->host_slot = host_slot;
  node->host_use = ++clock_;
  host_snapshots_.insert({node->host_use, node});
}

void PrefixTree::drop_host_snapshot(PrefixNode* node) {
  if (node->host_slot < 0) return;
  host_snapshots_.erase({node->host_use, node});
  host_slots_.release(node->host_slot);
  node->host_slot = -1;
}

void PrefixTree::touch_snapshot(PrefixNode* node) {
  if (node->slot >= 0) {
    snapshots_.erase({node->slot_use, node});
    node->slot_use = ++clock_;
    snapshots_.insert({node->slot_use, node});
  }
  if (node->host_slot >= 0) {
    host_snapshots_.erase({node->host_use, node});
    node->host_use = ++clock_;
    host_snapshots_.insert({node->host_use, node});
  }
}

bool PrefixTree::evict_page() {
  if (leaves_.empty()) return false;
  PrefixNode* leaf = leaves_.begin()->second;
  leaves_.erase(leaves_.begin());
  drop_snapshot(leaf);
  drop_host_snapshot(leaf);
  pages_.release(leaf->page);
  --num_pages_;
  PrefixNode* parent = leaf->parent;
  // A page was used whenever one that follows it was.
  parent->page_use = std::max(parent->page_use, leaf->page_use);
  parent->children.erase(parent->children.find(leaf->tokens));
  restore_order(parent);
  return true;
}

PrefixNode* PrefixTree::oldest_snapshot() const {
  for (const auto& [use, node] : snapshots_) {
    // A slot that a sequence still reads frees nothing.
    if (slots_.holders(node->slot) == 1) return node;
  }
  return nullptr;
}

int64_t PrefixTree::num_unread_snapshots(int64_t most) const {
  int64_t count = 0;
  for (auto it = snapshots_.begin(); it != snapshots_.end() && count < most; ++it)
    count += slots_.holders(it->second->slot) == 1 ? 1 : 0;
  return count;
}

PrefixNode* PrefixTree::oldest_host_snapshot() const {
  return host_snapshots_.empty() ? nullptr : host_snapshots_.begin()->second;
}

void PrefixTree::clear() {
  while (evict_page()) {
  }
}

void PrefixTree::check_integrity() const {
  int64_t pages = 0;
  int64_t slots = 0;
  int64_t host_slots = 0;
  int64_t leaves = 0;
  std::vector<const PrefixNode*> pending = {&root_};
  while (!pending.empty()) {
    const PrefixNode& node = *pending.back();
    pending.pop_back();
    auto* key = const_cast<PrefixNode*>(&node);
    if (node.parent != nullptr) {
      ++pages;
      MM_CHECK(pages_.holders(node.page) > 0, "page {} of the tree is free", node.page);
    }
    if (node.slot >= 0) {
      ++slots;
      MM_CHECK(slots_.holders(node.slot) > 0, "slot {} of the tree is free", node.slot);
      MM_CHECK(snapshots_.contains({node.slot_use, key}), "a snapshot has no order");
    }
    if (node.host_slot >= 0) {
      ++host_slots;
      MM_CHECK(host_slots_.holders(node.host_slot) == 1, "host slot {} is held {} times", node.host_slot,
               host_slots_.holders(node.host_slot));
      MM_CHECK(host_snapshots_.contains({node.host_use, key}), "a host snapshot has no order");
    }
    if (is_evictable(node)) {
      ++leaves;
      MM_CHECK(leaves_.contains({node.page_use, key}), "a leaf has no order");
    }
    for (const auto& [tokens, child] : node.children) {
      MM_CHECK(child->parent == &node && child->tokens == tokens,
               "a child has another parent or other tokens");
      pending.push_back(child.get());
    }
  }
  MM_CHECK(pages == num_pages_, "{} pages in the tree, {} counted", pages, num_pages_);
  MM_CHECK(slots == num_snapshots(), "{} snapshots in the tree, {} in order", slots, num_snapshots());
  MM_CHECK(host_slots == num_host_snapshots() && host_slots == host_slots_.num_holds(),
           "{} host snapshots in the tree, {} in order, {} held", host_slots, num_host_snapshots(),
           host_slots_.num_holds());
  MM_CHECK(leaves == static_cast<int64_t>(leaves_.size()), "{} evictable leaves, {} in order", leaves,
           leaves_.size());
}

}  // namespace minimax::cache
