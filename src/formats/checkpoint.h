// A Hugging Face model directory: config.json and safetensors files, mapped, not copied.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/weight_source.h"

namespace minimax::formats {

inline constexpr std::string_view kConfigFile = "config.json";
inline constexpr std::string_view kGenerationConfigFile = "generation_config.json";
inline constexpr std::string_view kWeightsFile = "model.safetensors";
inline constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// The directory's config.json. Needs no weights. THROWS: Error naming the file.
nlohmann::json read_config(const std::filesystem::path& directory);

// The directory's generation_config.json, an empty object when there is none.
nlohmann::json read_generation_config(const std::filesystem::path& directory);

// Tensor name -> file name, from a model.safetensors.index.json. Needs no weights.
// THROWS: Error when the file is no index or a file name leaves the directory.
std::map<std::string, std::string> read_weight_map(const std::filesystem::path& index_path);

// The weights of a directory. When model.safetensors.index.json is there it decides which files are read;
// otherwise model.safetensors is. Tensors are views of the mapped files; one whose address is not a multiple
// of its element size is copied to aligned memory when first asked for.
class Checkpoint : public WeightSource {
 public:
  // Maps the files and reads their headers. THROWS: Error; disagreements of index and shards are listed
  // together.
  static Checkpoint open(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::string describe() const override { return directory_.string(); }
  Tensor tensor(const TensorInfo& info) override;
  using WeightSource::tensor;

 private:
  // Bytes of the tensor of the same index in tensors_.
  struct Location {
    const std::byte* data = nullptr;
    std::unique_ptr<std::byte[]> copy;  // when data is misaligned
  };

  explicit Checkpoint(std::filesystem::path directory) : directory_(std::move(directory)) {}
  void open_single();
  void open_shards();
  void add_file(const std::string& file_name);
  void sort_tensors();

  std::filesystem::path directory_;
  std::vector<MappedFile> files_;
  std::vector<TensorInfo> tensors_;
  std::vector<Location> locations_;
};

}  // namespace minimax::formats
