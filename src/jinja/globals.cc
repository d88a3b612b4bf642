#include "jinja/globals.h"

#include <ctime>
#include <unordered_map>

#include "core/error.h"
#include "jinja/template.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // the sandbox's own bound

// The number of values from begin to end in steps, without overflow.
uint64_t range_length(int64_t begin, int64_t end, int64_t step) {
  if (step > 0 ? begin >= end : begin <= end) return 0;
  const uint64_t low = static_cast<uint64_t>(step > 0 ? begin : end);
  const uint64_t high = static_cast<uint64_t>(step > 0 ? end : begin);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : ~static_cast<uint64_t>(step) + 1;
  return (high - low - 1) / stride + 1;
}

Value range_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  const Parameters p("range", std::move(args), {"start", "stop", "step"});
  const int64_t first = to_integer(p.required(0), "an argument of range()");
  const int64_t begin = p.has(1) ? first : 0;
  const int64_t end = p.integer_or(1, first);
  const int64_t step = p.integer_or(2, 1);
  if (step == 0) fail("range() with a step of zero");
  const uint64_t length = range_length(begin, end, step);
  if (length > kMaxRange) fail("range() of {} values; the limit is {}", length, kMaxRange);
  std::vector<Value> items;
  for (uint64_t i = 0; i < length; ++i) {
    items.emplace_back(static_cast<int64_t>(static_cast<uint64_t>(begin) + i * static_cast<uint64_t>(step)));
  }
  runtime.meter().allocate(static_cast<int64_t>(length * sizeof(Value)));
  Sequence sequence(SequenceKind::kRange, std::move(items));
  sequence.range_repr = step == 1 ? fmt::format("range({}, {})", begin, end)
                                  : fmt::format("range({}, {}, {})", begin, end, step);
  return sequence;
}

void add_entries(Runtime& runtime, Mapping& mapping, const Value& source) {
  require_defined(source);
  if (source.is_mapping()) {
    runtime.meter().allocate(source.weight());
    for (const auto& [key, value] : source.mapping().entries()) mapping.set(key, value);
    return;
  }
  for (const Value& item : runtime.iterate(source)) {
    const std::vector<Value> pair = runtime.iterate(item);
    if (pair.size() != 2) fail("dict() needs pairs, got an item of {}", pair.size());
    mapping.set(pair[0], pair[1]);
  }
}

Mapping mapping_of(Runtime& runtime, Args args) {
  if (args.positional.size() > 1) fail("at most one positional argument makes a mapping");
  Mapping mapping;
  if (!args.positional.empty()) add_entries(runtime, mapping, args.positional[0]);
  for (auto& [name, value] : args.named) {
    runtime.meter().allocate(static_cast<int64_t>(name.size() + sizeof(Value)) * 2);
    mapping.set(Value(name), std::move(value));
  }
  return mapping;
}

Value dict_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  return mapping_of(runtime, std::move(args));
}

Value namespace_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  const Mapping mapping = mapping_of(runtime, std::move(args));
  auto* result = runtime.make<Namespace>();
  for (const auto& [key, value] : mapping.entries()) {
    if (key.is_string()) result->set(key.string(), value);
  }
  return Value(result);
}

Value cycler_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  if (args.positional.empty() || !args.named.empty()) fail("cycler() needs at least one positional item");
  return Value(runtime.make<Cycler>(std::move(args.positional)));
}

Value joiner_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  const Parameters p("joiner", std::move(args), {"sep"});
  return Value(runtime.make<Joiner>(p.has(0) ? p.string(0) : ", "));
}

Value raise_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  const Parameters p("raise_exception", std::move(args), {"message"});
  throw RaisedError(runtime.text_of(p.required(0)));
}

Value strftime_function(Runtime& runtime, const Value&, std::string_view, Args args) {
  const Parameters p("strftime_now", std::move(args), {"format"});
  const std::string& format = p.string(0);
  if (format.empty()) return Value("");
  if (format.size() > 1000) fail("strftime_now() with a format of {} bytes", format.size());
  const std::time_t now = runtime.now();
  std::tm local{};
  localtime_r(&now, &local);
  std::string buffer(65536, '\0');
  buffer.resize(std::strftime(buffer.data(), buffer.size(), format.c_str(), &local));
  return runtime.string(sanitize_utf8(buffer));
}

}  // namespace

bool find_global(Runtime& runtime, std::string_view name, Value* out) {
  static const std::unordered_map<std::string_view, Function::Body> kGlobals = {
      {"range", range_function},           {"dict", dict_function},     {"namespace", namespace_function},
      {"cycler", cycler_function},         {"joiner", joiner_function}, {"raise_exception", raise_function},
      {"strftime_now", strftime_function},
  };
  const auto found = kGlobals.find(name);
  if (found == kGlobals.end()) return false;
  *out = Value(runtime.make<Function>(found->second, Value(), name));
  return true;
}

}  // namespace minimax::jinja
