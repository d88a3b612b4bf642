#include "jinja/value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/error.h"
#include "jinja/limits.h"
#include "jinja/object.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

constexpr size_t kIndexedFrom = 8;  // smaller mappings are searched from the front

int checked_depth(int child_depth) {
  if (child_depth >= kMaxValueDepth) fail("a value nests deeper than {} lists or mappings", kMaxValueDepth);
  return child_depth + 1;
}

int64_t checked_weight(int64_t weight) {
  if (weight > kMaxValueWeight) fail("a value holds more than {} bytes", kMaxValueWeight);
  return weight;
}

// -1, 0 or 1; exact for every pair. REQUIRES: b is not NaN.
int compare_int_float(int64_t a, double b) {
  constexpr double kTwo63 = 9223372036854775808.0;
  if (b >= kTwo63) return -1;
  if (b < -kTwo63) return 1;
  const double whole = std::trunc(b);
  const int64_t i = static_cast<int64_t>(whole);
  if (a != i) return a < i ? -1 : 1;
  if (whole == b) return 0;
  return whole < b ? -1 : 1;
}

bool numbers_equal(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_float() && b.is_float()) return a.floating() == b.floating();
  const Value& i = a.is_float() ? b : a;
  const double f = a.is_float() ? a.floating() : b.floating();
  return !std::isnan(f) && compare_int_float(i.integer(), f) == 0;
}

bool number_less(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  if (a.is_float() && b.is_float()) return a.floating() < b.floating();
  const double f = a.is_float() ? a.floating() : b.floating();
  if (std::isnan(f)) return false;
  if (a.is_float()) return compare_int_float(b.integer(), f) > 0;
  return compare_int_float(a.integer(), f) < 0;
}

bool mappings_equal(const Mapping& a, const Mapping& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

bool sequences_equal(const Sequence& a, const Sequence& b) {
  return a.kind == b.kind && a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), equal);
}

}  // namespace

Text::Text(std::string s) : utf8(std::move(s)), length(utf8_length(utf8)) {}

Sequence::Sequence(SequenceKind sequence_kind, std::vector<Value> values)
    : kind(sequence_kind), items(std::move(values)) {
  int deepest = 0;
  weight = 16;
  for (const Value& item : items) {
    deepest = std::max(deepest, item.depth());
    weight = checked_weight(weight + item.weight());
  }
  depth = checked_depth(deepest);
}

void Mapping::set(Value key, Value value) {
  depth_ = std::max(depth_, checked_depth(std::max(key.depth(), value.depth())));
  weight_ = checked_weight(weight_ + key.weight() + value.weight());
  const size_t hash = hash_value(key);
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (entries_.size() == kIndexedFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(hash_value(entries_[i].first), i);
  } else if (entries_.size() > kIndexedFrom) {
    index_.emplace(hash, entries_.size() - 1);
  }
}

const Value* Mapping::find(const Value& key) const {
  if (index_.empty()) {
    for (const auto& [k, v] : entries_) {
      if (equal(k, key)) return &v;
    }
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(hash_value(key));
  for (auto it = begin; it != end; ++it) {
    if (equal(entries_[it->second].first, key)) return &entries_[it->second].second;
  }
  return nullptr;
}

const Value* Mapping::find(std::string_view key) const {
  const auto matches = [&](const Value& k) { return k.is_string() && k.string() == key; };
  if (index_.empty()) {
    for (const auto& [k, v] : entries_) {
      if (matches(k)) return &v;
    }
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(std::hash<std::string_view>{}(key));
  for (auto it = begin; it != end; ++it) {
    if (matches(entries_[it->second].first)) return &entries_[it->second].second;
  }
  return nullptr;
}

Value::Value(Sequence value) : data_(std::make_shared<const Sequence>(std::move(value))) {}
Value::Value(Mapping value) : data_(std::make_shared<const Mapping>(std::move(value))) {}

Value Value::list(std::vector<Value> items) { return Sequence(SequenceKind::kList, std::move(items)); }
Value Value::tuple(std::vector<Value> items) { return Sequence(SequenceKind::kTuple, std::move(items)); }

bool Value::is_sequence(SequenceKind kind) const { return is_sequence() && sequence().kind == kind; }

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(message))};
  return value;
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  if (is_mapping()) return mapping().depth();
  return 0;
}

int64_t Value::weight() const {
  if (is_string()) return 16 + static_cast<int64_t>(string().size());
  if (is_sequence()) return sequence().weight;
  if (is_mapping()) return mapping().weight();
  return 16;
}

bool Value::is_same(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_sequence()) return &sequence() == &other.sequence();
  if (is_mapping()) return &mapping() == &other.mapping();
  return equal(*this, other);
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_bool()) return value.boolean();
  if (value.is_int()) return value.integer() != 0;
  if (value.is_float()) return value.floating() != 0;
  if (value.is_string()) return !value.string().empty();
  if (value.is_sequence()) return !value.sequence().items.empty();
  if (value.is_mapping()) return value.mapping().size() != 0;
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return numbers_equal(a, b);
  if (a.is_string() && b.is_string()) return a.string() == b.string();
  if (a.is_sequence() && b.is_sequence()) return sequences_equal(a.sequence(), b.sequence());
  if (a.is_mapping() && b.is_mapping()) return mappings_equal(a.mapping(), b.mapping());
  if (a.is_object() && b.is_object()) return a.object() == b.object();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return number_less(a, b);
  // UTF-8 bytes order as code points do.
  if (a.is_string() && b.is_string()) return a.string() < b.string();
  if (a.is_sequence() && b.is_sequence() && a.sequence().kind == b.sequence().kind) {
    const auto& x = a.sequence().items;
    const auto& y = b.sequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  if (a.is_undefined()) fail("{}", a.undefined_message());
  if (b.is_undefined()) fail("{}", b.undefined_message());
  fail("'{}' and '{}' have no order", type_name(a), type_name(b));
}

size_t hash_value(const Value& value) {
  if (value.is_string()) return std::hash<std::string_view>{}(value.string());
  if (value.is_integral()) return std::hash<int64_t>{}(value.integer());
  if (value.is_float()) {
    const double f = value.floating();
    constexpr double kTwo63 = 9223372036854775808.0;
    if (f == std::trunc(f) && f >= -kTwo63 && f < kTwo63)
      return std::hash<int64_t>{}(static_cast<int64_t>(f));
    return std::hash<double>{}(f);
  }
  if (value.is_sequence(SequenceKind::kTuple)) {
    size_t hash = 0x345678;
    for (const Value& item : value.sequence().items) hash = hash * 1000003 ^ hash_value(item);
    return hash;
  }
  if (value.is_sequence() || value.is_mapping()) fail("a '{}' cannot be a key", type_name(value));
  if (value.is_object()) return std::hash<const void*>{}(value.object());
  return value.is_none() ? 1 : 2;
}

}  // namespace minimax::jinja
