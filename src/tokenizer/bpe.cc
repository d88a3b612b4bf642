#include "tokenizer/bpe.h"

#include <bit>
#include <limits>
#include <queue>

#include "core/error.h"
#include "tokenizer/byte_alphabet.h"

namespace minimax::tokenizer {
namespace {

// Up to this many symbols the search for the lowest rank by scanning is faster than a heap.
constexpr size_t kShortPiece = 48;
constexpr int32_t kMissing = -1;

uint64_t pair_of(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

size_t slot_of(uint64_t pair, size_t mask) {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15ULL) >> 32) & mask;
}

int32_t id_of(const Bpe::Vocabulary& vocabulary, const std::string& token, const char* what) {
  const auto found = vocabulary.find(token);
  if (found == vocabulary.end()) fail("tokenizer: {} '{}' of a merge is not in the vocabulary", what, token);
  return found->second;
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
         bool ignore_merges)
    : ignore_merges_(ignore_merges) {
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto found = vocabulary.find(byte_to_character(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = found == vocabulary.end() ? kMissing : found->second;
  }
  table_.resize(std::bit_ceil(merges.size() * 2 + 2));
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const uint64_t pair =
        pair_of(id_of(vocabulary, left, "the left side"), id_of(vocabulary, right, "the right side"));
    insert({pair, static_cast<int32_t>(rank), id_of(vocabulary, left + right, "the result")});
  }
  if (!ignore_merges) return;
  for (const auto& [token, id] : vocabulary) {
    if (auto bytes = token_to_bytes(token)) whole_.emplace(std::move(*bytes), id);
  }
}

// A pair that occurs twice keeps its last rank, as in a map.
void Bpe::insert(const Merge& merge) {
  const size_t mask = table_.size() - 1;
  size_t slot = slot_of(merge.pair, mask);
  while (table_[slot].pair != kNoPair && table_[slot].pair != merge.pair) slot = (slot + 1) & mask;
  table_[slot] = merge;
}

const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const size_t mask = table_.size() - 1;
  for (size_t slot = slot_of(pair, mask); table_[slot].pair != kNoPair; slot = (slot + 1) & mask) {
    if (table_[slot].pair == pair) return &table_[slot];
  }
  return nullptr;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    const auto found = whole_.find(std::string(piece));
    if (found != whole_.end()) {
      out.push_back(found->second);
      return;
    }
  }
  const size_t first = out.size();
  for (const char byte : piece) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
    if (id != kMissing) out.push_back(id);
  }
  const size_t count = out.size() - first;
  if (count < 2) return;
  std::vector<int32_t> ids(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
  if (count <= kShortPiece) {
    merge_short(ids);
  } else {
    merge_long(ids);
  }
  out.resize(first);
  out.insert(out.end(), ids.begin(), ids.end());
}

void Bpe::merge_short(std::vector<int32_t>& ids) const {
  std::array<const Merge*, kShortPiece> found;
  size_t count = ids.size();
  for (size_t i = 0; i + 1 < count; ++i) found[i] = find(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = count;
    int32_t rank = std::numeric_limits<int32_t>::max();
    for (size_t i = 0; i + 1 < count; ++i) {
      if (found[i] != nullptr && found[i]->rank < rank) {
        rank = found[i]->rank;
        best = i;
      }
    }
    if (best == count) break;
    ids[best] = found[best]->id;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      found[i] = found[i + 1];
    }
    --count;
    if (best > 0) found[best - 1] = find(ids[best - 1], ids[best]);
    if (best + 1 < count) found[best] = find(ids[best], ids[best + 1]);
  }
  ids.resize(count);
}

void Bpe::merge_long(std::vector<int32_t>& ids) const {
  struct Candidate {
    int32_t rank;
    int32_t left;
    int32_t right;
    uint64_t pair;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  if (ids.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    fail("tokenizer: a piece above 2 GiB");
  const auto count = static_cast<int32_t>(ids.size());
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : kMissing});
  const auto at = [&](int32_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t left, int32_t right) {
    if (left == kMissing || right == kMissing) return;
    const Merge* merge = find(at(left).id, at(right).id);
    if (merge != nullptr) queue.push({merge->rank, left, right, merge->pair});
  };
  for (int32_t i = 0; i + 1 < count; ++i) offer(i, i + 1);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = at(top.left);
    // Stale when either side has been merged since.
    if (left.id == kMissing || left.next != top.right || pair_of(left.id, at(top.right).id) != top.pair)
      continue;
    Symbol& right = at(top.right);
    left.id = find(left.id, right.id)->id;
    left.next = right.next;
    right.id = kMissing;
    if (right.next != kMissing) at(right.next).previous = top.left;
    offer(left.previous, top.left);
    offer(top.left, left.next);
  }
  ids.clear();
  for (int32_t i = 0; i != kMissing; i = at(i).next) ids.push_back(at(i).id);
}

}  // namespace minimax::tokenizer
