// Objects with identity and state: namespaces, macros, loops, iterators, functions. A render owns all of them
// and values hold plain pointers, so cycles neither leak nor outlive the render.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace minimax::jinja {

class Runtime;

// Arguments of a call.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;

  virtual std::string type() const = 0;
  virtual std::string repr() const { return "<" + type() + " object>"; }
  virtual bool is_callable() const { return false; }
  virtual bool is_iterable() const { return false; }
  // RETURNS: whether there is such an attribute; then it is in *out.
  virtual bool attribute(Runtime&, std::string_view, Value*) { return false; }
  virtual Value call(Runtime& runtime, Args args);
  // Takes what is left of an iterator.
  virtual std::vector<Value> drain() { return {}; }
};

class Namespace : public Object {
 public:
  std::string type() const override { return "Namespace"; }
  bool attribute(Runtime&, std::string_view name, Value* out) override;
  void set(std::string_view name, Value value);

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
};

// A one-shot iterator, made by the filters that are generators in Python.
class Iterator : public Object {
 public:
  explicit Iterator(std::vector<Value> items) : items_(std::move(items)) {}
  std::string type() const override { return "generator"; }
  bool is_iterable() const override { return true; }
  std::vector<Value> drain() override;
  // RETURNS: false at the end; else the next item is in *out.
  bool next(Value* out);

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

class Cycler : public Object {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  std::string type() const override { return "Cycler"; }
  bool attribute(Runtime& runtime, std::string_view name, Value* out) override;
  Value next();
  void reset() { position_ = 0; }

 private:
  std::vector<Value> items_;
  size_t position_ = 0;
};

class Joiner : public Object {
 public:
  explicit Joiner(std::string separator) : separator_(std::move(separator)) {}
  std::string type() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  Value call(Runtime&, Args) override;

 private:
  std::string separator_;
  bool used_ = false;
};

// A global function or a bound method.
class Function : public Object {
 public:
  using Body = Value (*)(Runtime& runtime, const Value& self, std::string_view name, Args args);
  Function(Body body, Value self, std::string_view name) : body_(body), self_(std::move(self)), name_(name) {}
  std::string type() const override { return "function"; }
  std::string repr() const override { return "<function " + name_ + ">"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, Args args) override { return body_(runtime, self_, name_, std::move(args)); }

 private:
  Body body_;
  Value self_;
  std::string name_;
};

}  // namespace minimax::jinja
