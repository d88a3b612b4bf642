// What filters, tests and methods may ask of the render that calls them.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/meter.h"
#include "jinja/object.h"
#include "jinja/value.h"

namespace minimax::jinja {

class Runtime {
 public:
  Runtime(const Limits& limits, std::time_t now) : meter_(limits), now_(now) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Meter& meter() { return meter_; }
  std::time_t now() const { return now_; }

  // Makes an object that lives as long as the render.
  template <typename T, typename... A>
  T* make(A&&... args) {
    meter_.allocate(static_cast<int64_t>(sizeof(T)) + 32);
    auto object = std::make_unique<T>(std::forward<A>(args)...);
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }

  // Values whose size is charged. Use these for everything that a template can make larger.
  Value string(std::string text);
  Value list(std::vector<Value> items);
  Value tuple(std::vector<Value> items);
  Value sequence(SequenceKind kind, std::vector<Value> items);
  Value iterator(std::vector<Value> items);
  // str(value), charged.
  std::string text_of(const Value& value);

  // obj[key] and obj.name; a missing one is Undefined. THROWS: Error when obj is Undefined.
  Value get_item(const Value& object, const Value& key);
  Value get_attribute(const Value& object, std::string_view name);
  // The items a loop over `value` sees. THROWS: Error when it cannot be iterated.
  std::vector<Value> iterate(const Value& value);
  Value call(const Value& callee, Args args);
  Value call_filter(std::string_view name, const Value& input, Args args);
  bool call_test(std::string_view name, const Value& input, Args args);

  // Evaluation depth; see Limits::max_eval_depth.
  class Depth {
   public:
    explicit Depth(Runtime& runtime);
    ~Depth() { --runtime_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Runtime& runtime_;
  };

 private:
  bool find_attribute(const Value& object, std::string_view name, Value* out);

  Meter meter_;
  std::time_t now_;
  int depth_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

// THROWS: Error with the message of an undefined value; does nothing for others.
void require_defined(const Value& value);

// Positional and named arguments matched to parameter names, as a Python function does.
class Parameters {
 public:
  // THROWS: Error naming `function` for too many, unknown or doubled arguments.
  Parameters(std::string_view function, Args args, std::initializer_list<std::string_view> names);

  bool has(size_t i) const { return present_[i]; }
  // REQUIRES: has(i).
  const Value& operator[](size_t i) const { return values_[i]; }
  // THROWS: Error when the argument is missing.
  const Value& required(size_t i) const;
  Value value_or(size_t i, Value fallback) const {
    if (has(i)) return values_[i];
    return fallback;
  }
  int64_t integer_or(size_t i, int64_t fallback) const;
  bool truth_or(size_t i, bool fallback) const { return has(i) ? truthy(values_[i]) : fallback; }
  bool is_none_or_absent(size_t i) const { return !has(i) || values_[i].is_none(); }
  const std::string& string(size_t i) const;

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<Value> values_;
  std::vector<bool> present_;
};

// THROWS: Error unless `value` is an integer / a string, naming `what`.
int64_t to_integer(const Value& value, std::string_view what);
const Text& to_text(const Value& value, std::string_view what);

}  // namespace minimax::jinja
