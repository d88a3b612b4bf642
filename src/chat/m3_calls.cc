// M3: a tag of a parameter's name for each argument, objects nested as tags, arrays as repeated tags. Only
// tags after the namespace token count, so values need no escaping and nothing in them is trimmed.
//
// A value goes out while it comes where the schema fixes its shape ("live"). Without a schema the same tag
// may come again and make an array of what looked like a string, so such values are kept ("children") and
// written when the object around them closes. Tags that were left out or misspelt are closed or opened as
// far as their neighbours tell, and the next call counts again.
#include <algorithm>
#include <unordered_map>

#include "chat/argument_text.h"
#include "chat/call_reader.h"
#include "chat/marker_scanner.h"

namespace minimax::chat {
namespace {

constexpr std::string_view kInvoke = "invoke name=";
// Deeper tags are left out.
constexpr size_t kMostFrames = 64;

// A closed value that is not written yet.
struct Child {
  std::string name;
  std::string json;
  std::string json_of_item;  // when it turns out to be one of several
};

// An open element.
struct Frame {
  enum class Shape { kLeaf, kString, kObject, kArray };
  enum class Field { kWritten, kKept };

  std::string name;
  Schema schema;
  TypeSet types;
  bool is_live = false;       // written where it stands
  bool is_discarded = false;  // a name that comes again cannot take back what was sent
  Shape shape = Shape::kLeaf;
  std::string text;                               // of a leaf, or between the tags of an object
  TextValue string;                               // kString
  bool is_empty = true;                           // nothing was written into the object or array
  std::unordered_map<std::string, Field> fields;  // of an object
  std::vector<Child> children;
};

bool is_blank(std::string_view text) { return stripped(text).empty(); }

std::string leaf_json(const Frame& frame) {
  if (is_blank(frame.text) && !frame.types.has(TypeSet::kString)) {
    if (frame.types.has(TypeSet::kObject)) return "{}";
    if (frame.types.has(TypeSet::kArray)) return "[]";
  }
  return typed_value(frame.text, frame.types, NullRule::kDeclared);
}

std::string joined_items(const std::vector<const Child*>& children) {
  std::string json = "[";
  for (const Child* child : children) json += (json.size() > 1 ? ", " : "") + child->json_of_item;
  return json += ']';
}

// {name, JSON} of each name in the order in which names came first; one that came again is an array.
std::vector<std::pair<std::string, std::string>> grouped(const std::vector<Child>& children) {
  std::vector<std::vector<const Child*>> groups;
  std::unordered_map<std::string_view, size_t> places;
  for (const Child& child : children) {
    const auto [place, is_new] = places.emplace(child.name, groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(&child);
  }
  std::vector<std::pair<std::string, std::string>> fields;
  fields.reserve(groups.size());
  for (const auto& group : groups) {
    fields.emplace_back(group.front()->name, group.size() == 1 ? group.front()->json : joined_items(group));
  }
  return fields;
}

// A value that was not written while it came.
std::string kept_json(const Frame& frame) {
  if (frame.shape == Frame::Shape::kLeaf) return leaf_json(frame);
  const auto is_item = [](const Child& child) { return child.name == "item"; };
  if (frame.shape == Frame::Shape::kArray ||
      (frame.types.empty() && std::all_of(frame.children.begin(), frame.children.end(), is_item))) {
    std::vector<const Child*> items;
    for (const Child& child : frame.children) items.push_back(&child);
    return joined_items(items);
  }
  std::string json = "{";
  bool has_text = false;
  for (const auto& [name, value] : grouped(frame.children)) {
    json += (json.size() > 1 ? ", " : "") + json_string(name) + ": " + value;
    has_text = has_text || name == "$text";
  }
  if (!is_blank(frame.text) && !has_text) {
    json += (json.size() > 1 ? ", " : "") + json_string("$text") + ": " + json_string(frame.text);
  }
  return json += '}';
}

class M3Calls final : public CallReader {
 public:
  M3Calls(const std::vector<Tool>& tools, CallSink& sink) : tools_(tools), sink_(sink) {}

  void begin() override {
    state_ = State::kTag;
    tag_ = "<";
    tag_ += kInvoke;
  }

  void feed(char c) override {
    if (state_ == State::kText) {
      std::string text;
      if (namespace_.feed(c, text) != MarkerScanner::kNone) {
        state_ = State::kTag;
        tag_.clear();
      }
      add_text(text);
    } else if (state_ == State::kTag) {
      feed_tag(c);
    }
  }

  bool finish() override {
    const bool is_call_tag = state_ == State::kTag && std::string_view(tag_).starts_with('<') &&
                             std::string_view(tag_).substr(1).starts_with(kInvoke);
    return !frames_.empty() || is_call_tag;
  }

 private:
  using Shape = Frame::Shape;
  enum class State { kText, kTag, kClosed };

  void feed_tag(char c) {
    if (tag_.empty() ? c == '<' : c != '<' && c != '>' && c != '\n' && tag_.size() <= kLongestTag) {
      tag_ += c;
      return;
    }
    state_ = State::kText;
    const std::string tag = std::exchange(tag_, {});
    if (!tag.empty() && c == '>') {
      on_tag(std::string_view(tag).substr(1));
      return;
    }
    add_text(kM3Namespace);
    for (const char again : tag) feed(again);
    feed(c);
  }

  void add_text(std::string_view text) {
    if (frames_.empty() || text.empty()) return;
    Frame& frame = frames_.back();
    if (frame.shape != Shape::kString) {
      frame.text += text;
      return;
    }
    std::string& arguments = sink_.arguments();
    for (const char c : text) frame.string.push(c, arguments);
  }

  void on_tag(std::string_view tag) {
    if (tag.starts_with('/')) {
      on_close(tag.substr(1));
    } else if (tag.starts_with(kInvoke)) {
      if (!frames_.empty()) end_call();
      begin_call(attribute_value(tag.substr(kInvoke.size())));
    } else if (!frames_.empty()) {
      on_open(std::string(tag));
    }
  }

  void begin_call(const std::string& name) {
    if (name.empty()) return;
    Frame root;
    root.schema = arguments_schema(tools_, name);
    root.is_live = true;
    root.shape = Shape::kObject;
    frames_.push_back(std::move(root));
    sink_.begin(name);
    sink_.arguments() += '{';
  }

  void end_call() {
    close_down_to(1);
    frames_.front().text.clear();
    end_live_object(frames_.front());
    frames_.clear();
    sink_.end();
  }

  void on_close(std::string_view name) {
    for (size_t depth = frames_.size(); depth > 1; --depth) {
      if (frames_[depth - 1].name == name) return close_down_to(depth - 1);
    }
    const bool ends_block = name == "tool_call";
    if ((ends_block || name == "invoke") && !frames_.empty()) end_call();
    if (ends_block) state_ = State::kClosed;
    if (frames_.size() > 1) {
      close();  // misspelt
    } else if (frames_.size() == 1 && !is_blank(frames_.front().text)) {
      // The parameter's opening tag was left out.
      const std::string text = std::exchange(frames_.front().text, {});
      open(std::string(name));
      add_text(text);
      close();
    }
  }

  void on_open(std::string name) {
    while (frames_.size() > 1 && is_left_open(name)) close();
    Frame& parent = frames_.back();
    if (parent.shape == Shape::kString) {
      add_text(std::string(kM3Namespace) + "<" + name + ">");
      return;
    }
    const bool is_root = frames_.size() == 1;
    if (is_root) parent.text.clear();
    const bool is_stray_block = is_root && name == "tool_call" && !parent.schema.lists(name);
    if (frames_.size() < kMostFrames && !is_stray_block) open(std::move(name));
  }

  // Whether the innermost element lacks its closing tag: it takes no tags, and its neighbour begins.
  bool is_left_open(const std::string& name) const {
    const Frame& top = frames_.back();
    const Frame& parent = frames_[frames_.size() - 2];
    const bool takes_no_tags =
        top.shape == Shape::kString || (top.shape == Shape::kLeaf && top.types.is_scalar());
    return takes_no_tags && top.name != name && parent.shape == Shape::kObject && parent.schema.lists(name);
  }

  void open(std::string name) {
    if (frames_.back().shape == Shape::kLeaf) take_tags(name);
    Frame& parent = frames_.back();
    Frame frame;
    frame.schema = parent.shape == Shape::kArray ? parent.schema.items() : parent.schema.property(name);
    frame.types = frame.schema.types();
    frame.is_live = parent.is_live && !frame.types.empty();
    if (parent.is_live && parent.shape == Shape::kObject) {
      const auto field = parent.fields.find(name);
      if (field != parent.fields.end()) {
        frame.is_live = false;
        frame.is_discarded = field->second == Frame::Field::kWritten;
      } else {
        parent.fields[name] = frame.is_live ? Frame::Field::kWritten : Frame::Field::kKept;
      }
    }
    frame.name = std::move(name);
    if (frame.is_live && frame.types.is_text()) {
      frame.shape = Shape::kString;
      frame.string = TextValue(false, frame.types.has(TypeSet::kNull));
      begin_value(parent, frame.name);
    }
    frames_.push_back(std::move(frame));
  }

  // The innermost element gets its first child.
  void take_tags(const std::string& child) {
    Frame& frame = frames_.back();
    const bool is_array =
        frame.types.has(TypeSet::kArray) && (!frame.types.has(TypeSet::kObject) || child == "item");
    frame.shape = is_array ? Shape::kArray : Shape::kObject;
    if (!frame.is_live) return;
    begin_value(frames_[frames_.size() - 2], frame.name);
    sink_.arguments() += is_array ? '[' : '{';
  }

  // Writes what stands before a value in `parent`.
  void begin_value(Frame& parent, const std::string& name) {
    std::string& arguments = sink_.arguments();
    if (!parent.is_empty) arguments += ", ";
    parent.is_empty = false;
    if (parent.shape == Shape::kObject) arguments += json_string(name) + ": ";
  }

  void close_down_to(size_t depth) {
    while (frames_.size() > depth) close();
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    Frame& parent = frames_.back();
    if (frame.is_live) {
      close_live(frame, parent);
    } else if (parent.is_live && parent.shape == Shape::kArray) {
      begin_value(parent, frame.name);
      sink_.arguments() += kept_json(frame);
    } else if (!frame.is_discarded) {
      const std::string json = kept_json(frame);
      parent.children.push_back({frame.name, json, item_json(frame, json)});
    }
  }

  // A leaf where the schema wants an array may be one of its items.
  static std::string item_json(const Frame& frame, const std::string& json) {
    if (frame.shape != Shape::kLeaf || !frame.types.has(TypeSet::kArray)) return json;
    return typed_value(frame.text, frame.schema.items().types(), NullRule::kDeclared);
  }

  void close_live(Frame& frame, Frame& parent) {
    switch (frame.shape) {
      case Shape::kString:
        frame.string.finish(sink_.arguments());
        break;
      case Shape::kObject:
        end_live_object(frame);
        break;
      case Shape::kArray:
        sink_.arguments() += ']';
        break;
      case Shape::kLeaf:
        close_live_leaf(frame, parent);
        break;
    }
  }

  void close_live_leaf(const Frame& frame, Frame& parent) {
    const std::string json = leaf_json(frame);
    const bool may_be_item =
        parent.shape == Shape::kObject && frame.types.has(TypeSet::kArray) && json.starts_with('"');
    if (may_be_item) {
      parent.fields[frame.name] = Frame::Field::kKept;
      parent.children.push_back({frame.name, json, item_json(frame, json)});
      return;
    }
    begin_value(parent, frame.name);
    sink_.arguments() += json;
  }

  void end_live_object(Frame& frame) {
    for (const auto& [name, json] : grouped(frame.children)) {
      begin_value(frame, name);
      sink_.arguments() += json;
    }
    if (!is_blank(frame.text) && !frame.fields.contains("$text")) {
      begin_value(frame, "$text");
      sink_.arguments() += json_string(frame.text);
    }
    sink_.arguments() += '}';
  }

  const std::vector<Tool>& tools_;
  CallSink& sink_;
  State state_ = State::kText;
  MarkerScanner namespace_{{kM3Namespace}};
  std::string tag_;            // from its `<`
  std::vector<Frame> frames_;  // the call's arguments and what is open in them; empty between calls
};

}  // namespace

std::unique_ptr<CallReader> make_m3_calls(const std::vector<Tool>& tools, CallSink& sink) {
  return std::make_unique<M3Calls>(tools, sink);
}

}  // namespace minimax::chat
