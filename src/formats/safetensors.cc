#include "formats/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"
#include "formats/printable.h"

namespace minimax::formats {
namespace {

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr size_t kMaxRank = 8;

// Receives the JSON events of a header. Everything that is not exactly the expected structure is refused at
// once, so a hostile header cannot make us build a large document.
class HeaderHandler : public nlohmann::json_sax<json> {
 public:
  HeaderHandler(std::string_view file_name, SafetensorsHeader& header)
      : file_name_(file_name), header_(header) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool /*value*/) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { unexpected(fmt::format("the number {}", value)); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    unexpected(fmt::format("the number {}", value));
  }
  bool binary(binary_t& /*value*/) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t size) override;
  bool key(string_t& value) override;
  bool end_object() override;
  bool start_array(size_t size) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string& token, const json::exception& error) override;

 private:
  enum class Place { kStart, kTop, kEntry, kNumbers, kMetadata, kEnd };
  enum class Field { kNone, kDtype, kShape, kOffsets };

  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) {
    fail("{}: safetensors header: {}", file_name_, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void unexpected(std::string_view found) {
    fail_here(
        "tensor \"{}\": {} stands where it does not belong; expected "
        "{{\"dtype\": text, \"shape\": [sizes], \"data_offsets\": [begin, end]}}",
        printable(entry_.name), found);
  }
  void finish_entry();
  void select_field(const std::string& key);

  std::string_view file_name_;
  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  Field field_ = Field::kNone;
  bool is_metadata_ = false;
  bool has_metadata_ = false;
  std::string metadata_key_;
  SafetensorsEntry entry_;
  std::optional<std::string> dtype_;
  std::optional<std::vector<int64_t>> shape_;
  std::optional<std::vector<int64_t>> offsets_;
};

bool HeaderHandler::number_unsigned(number_unsigned_t value) {
  if (place_ != Place::kNumbers) unexpected(fmt::format("the number {}", value));
  auto& numbers = field_ == Field::kShape ? *shape_ : *offsets_;
  if (value > static_cast<number_unsigned_t>(INT64_MAX)) {
    fail_here("tensor \"{}\": the number {} is too large", printable(entry_.name), value);
  }
  if (numbers.size() >= kMaxRank) {
    fail_here("tensor \"{}\": has more than {} dimensions", printable(entry_.name), kMaxRank);
  }
  numbers.push_back(static_cast<int64_t>(value));
  return true;
}

bool HeaderHandler::string(string_t& value) {
  if (place_ == Place::kMetadata) {
    if (!header_.metadata.emplace(metadata_key_, value).second) {
      fail_here("__metadata__ key \"{}\" appears twice", printable(metadata_key_));
    }
    return true;
  }
  if (place_ != Place::kEntry || field_ != Field::kDtype) unexpected("a text");
  dtype_ = value;
  return true;
}

bool HeaderHandler::start_object(size_t /*size*/) {
  if (place_ == Place::kStart) {
    place_ = Place::kTop;
  } else if (place_ == Place::kTop) {
    place_ = is_metadata_ ? Place::kMetadata : Place::kEntry;
  } else {
    unexpected("an object");
  }
  return true;
}

bool HeaderHandler::key(string_t& value) {
  if (place_ == Place::kMetadata) {
    metadata_key_ = value;
  } else if (place_ == Place::kEntry) {
    select_field(value);
  } else {
    is_metadata_ = value == "__metadata__";
    if (is_metadata_ && std::exchange(has_metadata_, true)) fail_here("__metadata__ appears twice");
    entry_ = SafetensorsEntry{};
    entry_.name = value;
    dtype_.reset();
    shape_.reset();
    offsets_.reset();
  }
  return true;
}

void HeaderHandler::select_field(const std::string& key) {
  bool is_twice = false;
  if (key == "dtype") {
    field_ = Field::kDtype;
    is_twice = dtype_.has_value();
  } else if (key == "shape") {
    field_ = Field::kShape;
    is_twice = shape_.has_value();
  } else if (key == "data_offsets") {
    field_ = Field::kOffsets;
    is_twice = offsets_.has_value();
  } else {
    fail_here("tensor \"{}\": unknown field \"{}\"", printable(entry_.name), printable(key));
  }
  if (is_twice) fail_here("tensor \"{}\": field {} appears twice", printable(entry_.name), key);
}

bool HeaderHandler::end_object() {
  if (place_ == Place::kEntry) finish_entry();
  place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
  return true;
}

bool HeaderHandler::start_array(size_t /*size*/) {
  if (place_ != Place::kEntry || field_ == Field::kDtype) unexpected("an array");
  (field_ == Field::kShape ? shape_ : offsets_).emplace();
  place_ = Place::kNumbers;
  return true;
}

bool HeaderHandler::end_array() {
  place_ = Place::kEntry;
  return true;
}

bool HeaderHandler::parse_error(size_t position, const std::string& /*token*/, const json::exception& error) {
  fail_here("not valid JSON at byte {}: {}; the file is damaged, download it again", position,
            printable(error.what(), 160));
}

void HeaderHandler::finish_entry() {
  const std::string name = printable(entry_.name);
  if (!dtype_) fail_here("tensor \"{}\": has no dtype", name);
  if (!shape_) fail_here("tensor \"{}\": has no shape", name);
  if (!offsets_) fail_here("tensor \"{}\": has no data_offsets", name);
  const auto dtype = dtype_from_name(*dtype_);
  if (!dtype) fail_here("tensor \"{}\": dtype \"{}\" is not supported", name, printable(*dtype_));
  if (offsets_->size() != 2) {
    fail_here("tensor \"{}\": data_offsets has {} numbers, expected 2", name, offsets_->size());
  }
  entry_.dtype = *dtype;
  entry_.shape = std::move(*shape_);
  entry_.begin = (*offsets_)[0];
  entry_.end = (*offsets_)[1];
  header_.tensors.push_back(std::move(entry_));
  entry_ = SafetensorsEntry{};
}

int64_t header_bytes(std::span<const std::byte> file, std::string_view file_name) {
  const auto file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    fail("{}: has {} bytes, fewer than the 8 that begin a safetensors file; download it again", file_name,
         file_bytes);
  }
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(file[i]);
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    fail(
        "{}: safetensors header length {} exceeds the limit of {}; the file is damaged or no safetensors "
        "file",
        file_name, length, kMaxSafetensorsHeaderBytes);
  }
  const auto bytes = static_cast<int64_t>(length);
  if (bytes > file_bytes - kLengthBytes) {
    fail(
        "{}: safetensors header of {} bytes does not fit the file of {} bytes; the file is truncated, "
        "download it again",
        file_name, bytes, file_bytes);
  }
  return bytes;
}

void check_size(const SafetensorsEntry& entry, int64_t data_bytes, std::string_view file_name) {
  const std::string name = printable(entry.name);
  int64_t bytes = size_of(entry.dtype);
  for (const int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) {
      fail("{}: tensor \"{}\": shape {} overflows a 64-bit size", file_name, name, shape_string(entry.shape));
    }
  }
  if (entry.begin > entry.end) {
    fail("{}: tensor \"{}\": data_offsets [{}, {}] run backwards", file_name, name, entry.begin, entry.end);
  }
  if (entry.end > data_bytes) {
    fail(
        "{}: tensor \"{}\" ends at byte {} of the data but the file holds {}; the file is truncated, "
        "download "
        "it again",
        file_name, name, entry.end, data_bytes);
  }
  if (entry.end - entry.begin != bytes) {
    fail("{}: tensor \"{}\": {} {} needs {} bytes, data_offsets [{}, {}] give {}", file_name, name,
         minimax::name(entry.dtype), shape_string(entry.shape), bytes, entry.begin, entry.end,
         entry.end - entry.begin);
  }
}

void check_unique_names(const std::vector<SafetensorsEntry>& tensors, std::string_view file_name) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const auto& entry : tensors) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail("{}: tensor \"{}\" appears twice", file_name, printable(*twice));
}

// REQUIRES: ordered by offset.
void check_tiling(const SafetensorsHeader& header, int64_t data_bytes, std::string_view file_name) {
  int64_t expected = 0;
  for (const auto& entry : header.tensors) {
    if (entry.begin < expected) {
      fail("{}: tensor \"{}\" begins at byte {} inside the tensor before it, which ends at {}", file_name,
           printable(entry.name), entry.begin, expected);
    }
    if (entry.begin > expected) {
      fail("{}: bytes {} to {} of the data, before tensor \"{}\", belong to no tensor", file_name, expected,
           entry.begin, printable(entry.name));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    fail("{}: the last {} bytes of the file belong to no tensor; the file is damaged, download it again",
         file_name, data_bytes - expected);
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view file_name) {
  const int64_t bytes = header_bytes(file, file_name);
  SafetensorsHeader header;
  header.data_offset = kLengthBytes + bytes;
  const auto* text = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  HeaderHandler handler(file_name, header);
  json::sax_parse(text, text + bytes, &handler);

  const int64_t data_bytes = static_cast<int64_t>(file.size()) - header.data_offset;
  for (const auto& entry : header.tensors) check_size(entry, data_bytes, file_name);
  check_unique_names(header.tensors, file_name);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_tiling(header, data_bytes, file_name);
  return header;
}

}  // namespace minimax::formats
