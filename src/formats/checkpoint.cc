#include "formats/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"
#include "formats/json.h"
#include "formats/printable.h"
#include "formats/problem_list.h"
#include "formats/safetensors.h"

namespace minimax::formats {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{4} << 20;
constexpr int64_t kMaxIndexBytes = int64_t{32} << 20;

void check_plain_file_name(const std::string& file, const std::string& tensor, const fs::path& index_path) {
  const bool is_plain = !file.empty() && file != "." && file != ".." && file.size() <= 255 &&
                        file.find('/') == std::string::npos && file.find('\\') == std::string::npos &&
                        file.find('\0') == std::string::npos;
  if (!is_plain) {
    fail("{}: tensor \"{}\" is said to be in \"{}\"; expected the plain name of a file in the same directory",
         index_path.string(), printable(tensor), printable(file));
  }
}

void check_directory(const fs::path& directory) {
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (status.type() == fs::file_type::directory) return;
  if (status.type() == fs::file_type::not_found) {
    fail("{}: no such directory; give the directory of a downloaded model", directory.string());
  }
  if (error) fail("{}: cannot be read: {}", directory.string(), error.message());
  fail("{}: is no directory; give the directory that holds config.json and the weights", directory.string());
}

bool file_exists(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::none) fail("{}: cannot be read: {}", path.string(), error.message());
  return fs::exists(status);
}

// The list of problems names the directory once.
std::string without_directory(std::string_view message, const fs::path& directory) {
  const std::string prefix = (directory / "").string();
  if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
  return std::string(message);
}

// Every tensor is where the index says, and no shard has another.
void compare_with_index(std::span<const TensorInfo> tensors,
                        const std::map<std::string, std::string>& weight_map,
                        const std::set<std::string>& failed_files, ProblemList& problems) {
  std::set<std::pair<std::string_view, std::string_view>> found;  // name, file
  for (const auto& info : tensors) found.emplace(info.name, info.file);
  for (const auto& [name, file] : weight_map) {
    if (failed_files.contains(file)) continue;
    if (found.erase({name, file}) == 0) {
      problems.add(fmt::format("tensor {} is not in {}, where the index puts it", printable(name), file));
    }
  }
  for (const auto& [name, file] : found) {
    problems.add(fmt::format("tensor {} in {} is not in the index", printable(name), file));
  }
}

}  // namespace

json read_config(const fs::path& directory) {
  check_directory(directory);
  return read_json_object(directory / kConfigFile, kMaxConfigBytes);
}

json read_generation_config(const fs::path& directory) {
  check_directory(directory);
  const fs::path path = directory / kGenerationConfigFile;
  return file_exists(path) ? read_json_object(path, kMaxConfigBytes) : json::object();
}

std::map<std::string, std::string> read_weight_map(const fs::path& index_path) {
  const json index = read_json_object(index_path, kMaxIndexBytes);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    fail("{}: has no \"weight_map\" object with tensors; download it again", index_path.string());
  }
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : weight_map->items()) {
    if (!file.is_string()) {
      fail("{}: tensor \"{}\" is mapped to a JSON {}; expected a file name", index_path.string(),
           printable(name), file.type_name());
    }
    check_plain_file_name(file.get_ref<const std::string&>(), name, index_path);
    files.emplace(name, file);
  }
  return files;
}

Checkpoint Checkpoint::open(const fs::path& directory) {
  check_directory(directory);
  Checkpoint checkpoint(directory);
  if (file_exists(directory / kIndexFile)) {
    checkpoint.open_shards();
  } else {
    checkpoint.open_single();
  }
  checkpoint.sort_tensors();
  return checkpoint;
}

void Checkpoint::open_single() {
  if (!file_exists(directory_ / kWeightsFile)) {
    fail("{}: holds neither {} nor {}; only safetensors checkpoints can be read, download those files",
         directory_.string(), kWeightsFile, kIndexFile);
  }
  add_file(std::string(kWeightsFile));
}

void Checkpoint::open_shards() {
  const auto weight_map = read_weight_map(directory_ / kIndexFile);
  std::set<std::string> files;
  for (const auto& [name, file] : weight_map) files.insert(file);
  ProblemList problems;
  std::set<std::string> failed_files;
  for (const auto& file : files) {
    try {
      add_file(file);
    } catch (const Error& e) {
      failed_files.insert(file);
      problems.add(without_directory(e.what(), directory_));
    }
  }
  compare_with_index(tensors_, weight_map, failed_files, problems);
  problems.throw_if_any(fmt::format("{}: index and shards disagree", directory_.string()),
                        "Download the named files again");
}

void Checkpoint::add_file(const std::string& file_name) {
  MappedFile file = MappedFile::open(directory_ / file_name);
  SafetensorsHeader header = parse_safetensors_header(file.bytes(), file.path().string());
  const std::byte* data = file.bytes().data() + header.data_offset;
  for (auto& entry : header.tensors) {
    tensors_.push_back({std::move(entry.name), entry.dtype, std::move(entry.shape), file_name});
    locations_.push_back({data + entry.begin, nullptr});
  }
  files_.push_back(std::move(file));
}

void Checkpoint::sort_tensors() {
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [this](size_t a, size_t b) { return tensors_[a].name < tensors_[b].name; });
  std::vector<TensorInfo> tensors;
  std::vector<Location> locations;
  for (const size_t i : order) {
    tensors.push_back(std::move(tensors_[i]));
    locations.push_back(std::move(locations_[i]));
  }
  tensors_ = std::move(tensors);
  locations_ = std::move(locations);
}

Tensor Checkpoint::tensor(const TensorInfo& info) {
  const auto i = static_cast<size_t>(&info - tensors_.data());
  MM_CHECK(i < tensors_.size(), "checkpoint {}: {} is another source's tensor", describe(), info.name);
  if (static_cast<int>(info.shape.size()) > Tensor::kMaxRank) {
    fail("{}: tensor \"{}\" has {} dimensions; at most {} are supported", info.file, printable(info.name),
         info.shape.size(), Tensor::kMaxRank);
  }
  Location& location = locations_[i];
  const bool is_misaligned =
      reinterpret_cast<uintptr_t>(location.data) % static_cast<uintptr_t>(size_of(info.dtype)) != 0;
  if (is_misaligned) {
    const auto bytes = static_cast<size_t>(info.size_bytes());
    location.copy = std::make_unique_for_overwrite<std::byte[]>(bytes);
    std::memcpy(location.copy.get(), location.data, bytes);
    location.data = location.copy.get();
  }
  // The mapping is read-only; Tensor has no const view, and no op writes to a weight.
  auto* data = const_cast<std::byte*>(location.data);
  if (info.shape.empty()) return {data, info.dtype, {1}, info.name};
  return {data, info.dtype, info.shape, info.name};
}

}  // namespace minimax::formats
