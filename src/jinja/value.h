// Values of the template language: Python's basic types, immutable except for the render-owned objects.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace minimax::jinja {

class Value;
class Object;
class Mapping;
struct Sequence;

// A string with its number of characters, which indexing and slicing need.
struct Text {
  explicit Text(std::string s);
  bool ascii() const { return length == static_cast<int64_t>(utf8.size()); }

  std::string utf8;
  int64_t length = 0;
};

enum class SequenceKind : uint8_t { kList, kTuple, kRange, kKeys, kValues, kItems };

struct None {};

// The value of a missing name or attribute; `message` says what was missing.
struct Undefined {
  std::shared_ptr<const std::string> message;
};

class Value {
 public:
  Value() : data_(None{}) {}
  // Implicit: a Value is whatever was given.
  // NOLINTBEGIN(google-explicit-constructor)
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const Text>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  Value(Sequence value);
  Value(Mapping value);
  Value(Object* value) : data_(value) {}
  // NOLINTEND(google-explicit-constructor)
  static Value undefined(std::string message);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<std::shared_ptr<const Text>>(data_); }
  bool is_sequence() const { return std::holds_alternative<std::shared_ptr<const Sequence>>(data_); }
  bool is_mapping() const { return std::holds_alternative<std::shared_ptr<const Mapping>>(data_); }
  bool is_object() const { return std::holds_alternative<Object*>(data_); }
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_number() const { return is_integral() || is_float(); }
  bool is_sequence(SequenceKind kind) const;

  // REQUIRES: the matching type.
  int64_t integer() const { return is_bool() ? int64_t{std::get<bool>(data_)} : std::get<int64_t>(data_); }
  bool boolean() const { return std::get<bool>(data_); }
  double floating() const { return std::get<double>(data_); }
  double number() const { return is_float() ? floating() : static_cast<double>(integer()); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  const std::string& string() const { return text().utf8; }
  const Sequence& sequence() const { return *std::get<std::shared_ptr<const Sequence>>(data_); }
  const Mapping& mapping() const { return *std::get<std::shared_ptr<const Mapping>>(data_); }
  Object* object() const { return std::get<Object*>(data_); }
  const std::string& undefined_message() const { return *std::get<Undefined>(data_).message; }

  // Nesting depth: 0 for scalars and objects.
  int depth() const;
  // About the bytes this value takes when it is written out, shared parts counted as often as they occur:
  // the cost of comparing, printing or copying it. At most kMaxValueWeight.
  int64_t weight() const;
  // Python's `is`: the same object, equal small scalars.
  bool is_same(const Value& other) const;

 private:
  std::variant<None, Undefined, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Mapping>, Object*>
      data_;
};

struct Sequence {
  Sequence(SequenceKind sequence_kind, std::vector<Value> values);

  SequenceKind kind;
  int depth = 1;       // nesting, at most kMaxValueDepth
  int64_t weight = 0;  // see Value::weight
  std::vector<Value> items;
  std::string range_repr;  // kRange only
};

// An insertion-ordered mapping. Keys follow Python: 1, 1.0 and true are one key.
class Mapping {
 public:
  // THROWS: Error when the key cannot be hashed (list, mapping).
  void set(Value key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;

  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  int depth() const { return depth_; }
  int64_t weight() const { return weight_; }

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_multimap<size_t, size_t> index_;  // hash -> position in entries_
  int depth_ = 1;
  int64_t weight_ = 16;
};

// Truth as Python defines it.
bool truthy(const Value& value);
bool equal(const Value& a, const Value& b);
// RETURNS: true when a < b. THROWS: Error for types without an order.
bool less(const Value& a, const Value& b);
size_t hash_value(const Value& value);
// RETURNS: a type name as Python prints it, e.g. "str" or "dict".
std::string type_name(const Value& value);
// str(value) and repr(value). THROWS: Error when objects nest too deep.
std::string to_str(const Value& value);
std::string to_repr(const Value& value);
std::string repr_string(std::string_view text);
std::string repr_float(double value);

}  // namespace minimax::jinja
