// Filters on sequences and mappings.
#include <algorithm>
#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "jinja/filters.h"
#include "jinja/operators.h"
#include "jinja/text_methods.h"
#include "jinja/unicode.h"

namespace minimax::jinja {
namespace {

// A path like "function.name" or "0.text", resolved item by item.
class AttributePath {
 public:
  explicit AttributePath(const Value& attribute) {
    if (attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    const std::string& text = attribute.string();
    for (size_t begin = 0;;) {
      const size_t dot = std::min(text.find('.', begin), text.size());
      parts_.push_back(part(text.substr(begin, dot - begin)));
      if (dot == text.size()) break;
      begin = dot + 1;
    }
  }

  Value get(Runtime& runtime, Value item, const Value* fallback = nullptr) const {
    for (const Value& part : parts_) {
      item = runtime.get_item(item, part);
      if (fallback != nullptr && item.is_undefined()) item = *fallback;
    }
    return item;
  }

 private:
  static Value part(const std::string& text) {
    const bool digits =
        !text.empty() && text.size() < 18 && text.find_first_not_of("0123456789") == std::string::npos;
    return digits ? Value(int64_t{std::stoll(text)}) : Value(text);
  }

  std::vector<Value> parts_;
};

Value without_case(Runtime& runtime, const Value& value) {
  if (!value.is_string()) return value;
  runtime.meter().allocate(value.weight());
  return Value(to_lower(value.string()));
}

// What sort, unique, min, max and groupby compare by.
class Key {
 public:
  Key(Runtime& runtime, const Value& attribute, bool case_sensitive)
      : runtime_(runtime), path_(attribute), case_sensitive_(case_sensitive) {}

  Value operator()(const Value& item, const Value* fallback = nullptr) const {
    Value key = path_.get(runtime_, item, fallback);
    return case_sensitive_ ? key : without_case(runtime_, key);
  }

 private:
  Runtime& runtime_;
  AttributePath path_;
  bool case_sensitive_;
};

using Keyed = std::pair<Value, Value>;  // key, item

void sort_by_key(Runtime& runtime, std::vector<Keyed>& items, bool reverse) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? ordered(runtime, b.first, a.first) : ordered(runtime, a.first, b.first);
  });
}

std::vector<Value> items_of(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.second));
  return items;
}

Value length_filter(Runtime&, const Value& input, Args args) {
  const Parameters p("length", std::move(args), {});
  return length_of(input);
}

Value first_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("first", std::move(args), {});
  Value item;
  if (input.is_object()) {
    if (auto* iterator = dynamic_cast<Iterator*>(input.object());
        iterator != nullptr && iterator->next(&item))
      return item;
  }
  if (input.is_string() && !input.string().empty()) return Value(substring(input.text(), 0, 1));
  if (input.is_sequence() && !input.sequence().items.empty()) return input.sequence().items.front();
  const std::vector<Value> items = runtime.iterate(input);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("last", std::move(args), {});
  if (input.is_object()) fail("'{}' object is not reversible", type_name(input));
  if (input.is_sequence() && !input.sequence().items.empty()) return input.sequence().items.back();
  const std::vector<Value> items = runtime.iterate(input);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("list", std::move(args), {});
  return runtime.list(runtime.iterate(input));
}

Value items_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("items", std::move(args), {});
  if (input.is_undefined()) return runtime.iterator({});
  if (!input.is_mapping()) fail("items of a '{}': only a mapping has them", type_name(input));
  std::vector<Value> items;
  for (const auto& [key, value] : input.mapping().entries()) items.push_back(runtime.tuple({key, value}));
  return runtime.iterator(std::move(items));
}

Value reverse_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("reverse", std::move(args), {});
  if (input.is_string()) return slice(runtime, input, Value(), Value(), Value(-1));
  std::vector<Value> items = runtime.iterate(input);
  std::reverse(items.begin(), items.end());
  return input.is_object() ? runtime.list(std::move(items)) : runtime.iterator(std::move(items));
}

Value join_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("join", std::move(args), {"d", "attribute"});
  const AttributePath path(p.value_or(1, Value()));
  std::vector<std::string> parts;
  for (const Value& item : runtime.iterate(input)) parts.push_back(runtime.text_of(path.get(runtime, item)));
  return join_text(runtime, p.has(0) ? runtime.text_of(p[0]) : "", parts);
}

// One key per comma-separated attribute.
Value multi_key(Runtime& runtime, const std::vector<Key>& keys, const Value& item) {
  std::vector<Value> parts;
  parts.reserve(keys.size());
  for (const Key& key : keys) parts.push_back(key(item));
  return runtime.list(std::move(parts));
}

Value sort_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("sort", std::move(args), {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = p.truth_or(1, false);
  const Value attribute = p.value_or(2, Value());
  std::vector<Key> keys;
  if (attribute.is_string()) {
    const std::string& text = attribute.string();
    for (size_t begin = 0; begin <= text.size();) {
      const size_t comma = std::min(text.find(',', begin), text.size());
      keys.emplace_back(runtime, Value(text.substr(begin, comma - begin)), case_sensitive);
      begin = comma + 1;
    }
  } else {
    keys.emplace_back(runtime, attribute, case_sensitive);
  }
  std::vector<Keyed> items;
  for (const Value& item : runtime.iterate(input)) items.emplace_back(multi_key(runtime, keys, item), item);
  sort_by_key(runtime, items, p.truth_or(0, false));
  return runtime.list(items_of(std::move(items)));
}

Value dictsort_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("dictsort", std::move(args), {"case_sensitive", "by", "reverse"});
  require_defined(input);
  const std::string by = p.has(1) ? p.string(1) : "key";
  if (by != "key" && by != "value") fail("dictsort sorts by \"key\" or \"value\", not \"{}\"", by);
  if (!input.is_mapping()) fail("dictsort of a '{}'", type_name(input));
  const Key key(runtime, Value(), p.truth_or(0, false));
  std::vector<Keyed> items;
  for (const auto& [k, v] : input.mapping().entries()) {
    items.emplace_back(key(by == "key" ? k : v), runtime.tuple({k, v}));
  }
  sort_by_key(runtime, items, p.truth_or(2, false));
  return runtime.list(items_of(std::move(items)));
}

Value unique_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("unique", std::move(args), {"case_sensitive", "attribute"});
  const Key key(runtime, p.value_or(1, Value()), p.truth_or(0, false));
  Mapping seen;
  std::vector<Value> items;
  for (const Value& item : runtime.iterate(input)) {
    const Value k = key(item);
    runtime.meter().allocate(k.weight());
    hash_value(k);
    if (seen.find(k) != nullptr) continue;
    seen.set(k, Value());
    items.push_back(item);
  }
  return runtime.iterator(std::move(items));
}

template <bool kMax>
Value extreme_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p(kMax ? "max" : "min", std::move(args), {"case_sensitive", "attribute"});
  const Key key(runtime, p.value_or(1, Value()), p.truth_or(0, false));
  const std::vector<Value> items = runtime.iterate(input);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = key(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    const Value k = key(items[i]);
    if (kMax ? ordered(runtime, best_key, k) : ordered(runtime, k, best_key)) {
      best = i;
      best_key = k;
    }
  }
  return items[best];
}

Value sum_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("sum", std::move(args), {"attribute", "start"});
  const AttributePath path(p.value_or(0, Value()));
  Value total = p.value_or(1, Value(0));
  if (total.is_string()) fail("sum() cannot add strings; use join");
  for (const Value& item : runtime.iterate(input))
    total = binary(runtime, "+", total, path.get(runtime, item));
  return total;
}

Value batch_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("batch", std::move(args), {"linecount", "fill_with"});
  const int64_t size = to_integer(p.required(0), "linecount");
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : runtime.iterate(input)) {
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(runtime.list(std::exchange(batch, {})));
    batch.push_back(item);
  }
  if (!batch.empty()) {
    const int64_t missing = p.is_none_or_absent(1) ? 0 : size - static_cast<int64_t>(batch.size());
    runtime.meter().allocate(std::max<int64_t>(missing, 0), static_cast<int64_t>(sizeof(Value)));
    for (int64_t i = 0; i < missing; ++i) batch.push_back(p[1]);
    batches.push_back(runtime.list(std::move(batch)));
  }
  return runtime.iterator(std::move(batches));
}

Value slice_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("slice", std::move(args), {"slices", "fill_with"});
  const int64_t slices = to_integer(p.required(0), "slices");
  const std::vector<Value> items = runtime.iterate(input);
  if (slices == 0) fail("integer division or modulo by zero");
  runtime.meter().allocate(std::max<int64_t>(slices, 0), 128);
  const auto length = static_cast<int64_t>(items.size());
  std::vector<Value> columns;
  auto next = items.begin();
  for (int64_t i = 0; i < slices; ++i) {
    const bool extra = i < length % slices;
    const int64_t count = length / slices + (extra ? 1 : 0);
    std::vector<Value> column(next, next + count);
    next += count;
    if (!p.is_none_or_absent(1) && !extra) column.push_back(p[1]);
    columns.push_back(runtime.list(std::move(column)));
  }
  return runtime.iterator(std::move(columns));
}

Value groupby_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("groupby", std::move(args), {"attribute", "default", "case_sensitive"});
  const bool case_sensitive = p.truth_or(2, false);
  const Value* fallback = p.is_none_or_absent(1) ? nullptr : &p[1];
  const Key key(runtime, p.required(0), case_sensitive);
  const Key label(runtime, p.required(0), true);
  std::vector<Keyed> items;
  for (const Value& item : runtime.iterate(input)) items.emplace_back(key(item, fallback), item);
  sort_by_key(runtime, items, false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < items.size();) {
    size_t end = begin;
    std::vector<Value> members;
    while (end < items.size() && same(runtime, items[end].first, items[begin].first))
      members.push_back(items[end++].second);
    const Value name = label(members[0], fallback);
    groups.push_back(runtime.tuple({name, runtime.list(std::move(members))}));
    begin = end;
  }
  return runtime.list(std::move(groups));
}

std::optional<Value> take_named(Args& args, std::string_view name) {
  for (auto it = args.named.begin(); it != args.named.end(); ++it) {
    if (it->first != name) continue;
    Value value = std::move(it->second);
    args.named.erase(it);
    return value;
  }
  return std::nullopt;
}

// Takes the first positional argument, a filter's or test's name.
std::string take_name(Args& args, std::string_view what) {
  if (args.positional.empty()) fail("{} needs a name", what);
  std::string name = to_text(args.positional[0], what).utf8;
  args.positional.erase(args.positional.begin());
  return name;
}

Value map_filter(Runtime& runtime, const Value& input, Args args) {
  if (!truthy(input)) return runtime.iterator({});
  std::vector<Value> items = runtime.iterate(input);
  std::optional<Value> attribute = args.positional.empty() ? take_named(args, "attribute") : std::nullopt;
  if (attribute) {
    const std::optional<Value> fallback = take_named(args, "default");
    if (!args.named.empty()) fail("map() has no argument named '{}'", args.named[0].first);
    const AttributePath path(*attribute);
    const bool has_fallback = fallback && !fallback->is_none();
    for (Value& item : items) item = path.get(runtime, item, has_fallback ? &*fallback : nullptr);
    return runtime.iterator(std::move(items));
  }
  const std::string name = take_name(args, "map()");
  for (Value& item : items) item = runtime.call_filter(name, item, args);
  return runtime.iterator(std::move(items));
}

template <bool kKeep, bool kByAttribute>
Value select_filter(Runtime& runtime, const Value& input, Args args) {
  if (!truthy(input)) return runtime.iterator({});
  std::optional<AttributePath> path;
  if (kByAttribute) {
    if (args.positional.empty()) fail("selectattr() and rejectattr() need an attribute name");
    path.emplace(args.positional[0]);
    args.positional.erase(args.positional.begin());
  }
  const bool has_test = !args.positional.empty();
  const std::string test = has_test ? take_name(args, "select()") : "";
  std::vector<Value> kept;
  for (const Value& item : runtime.iterate(input)) {
    const Value subject = path ? path->get(runtime, item) : item;
    const bool passed = has_test ? runtime.call_test(test, subject, args) : truthy(subject);
    if (passed == kKeep) kept.push_back(item);
  }
  return runtime.iterator(std::move(kept));
}

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"batch", batch_filter},
      {"count", length_filter},
      {"dictsort", dictsort_filter},
      {"first", first_filter},
      {"groupby", groupby_filter},
      {"items", items_filter},
      {"join", join_filter},
      {"last", last_filter},
      {"length", length_filter},
      {"list", list_filter},
      {"map", map_filter},
      {"max", extreme_filter<true>},
      {"min", extreme_filter<false>},
      {"reject", select_filter<false, false>},
      {"rejectattr", select_filter<false, true>},
      {"reverse", reverse_filter},
      {"select", select_filter<true, false>},
      {"selectattr", select_filter<true, true>},
      {"slice", slice_filter},
      {"sort", sort_filter},
      {"sum", sum_filter},
      {"unique", unique_filter},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

Filter find_filter(std::string_view name) {
  const Filter scalar = find_scalar_filter(name);
  return scalar != nullptr ? scalar : find_sequence_filter(name);
}

}  // namespace minimax::jinja
