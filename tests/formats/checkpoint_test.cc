#include "formats/checkpoint.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "formats/safetensors_writer.h"
#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

using testing::expect_error;
using testing::TempDir;

constexpr const char* kShard1 = "model-00001-of-00002.safetensors";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";

// Two shards with tensors a, b and c, and their index.
class ShardedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    write_safetensors(dir_.path() / kShard1, std::vector<NamedTensor>{{"b", tensor(0)}, {"a", tensor(1)}});
    write_safetensors(dir_.path() / kShard2, std::vector<NamedTensor>{{"c", tensor(2)}});
    write_index({{"a", kShard1}, {"b", kShard1}, {"c", kShard2}});
  }

  Tensor tensor(size_t i) { return {&values_[2 * i], DType::kF32, {2}}; }
  void write_index(const std::map<std::string, std::string>& weight_map) {
    dir_.write(kIndexFile,
               nlohmann::json{{"metadata", {{"total_size", 24}}}, {"weight_map", weight_map}}.dump());
  }
  void expect_open_error(std::string_view part) {
    expect_error([this] { Checkpoint::open(dir_.path()); }, part);
  }

  TempDir dir_;
  std::vector<float> values_ = {1, 2, 3, 4, 5, 6};
};

TEST_F(ShardedCheckpoint, GivesViewsOrderedByName) {
  Checkpoint first = Checkpoint::open(dir_.path());
  Checkpoint checkpoint = std::move(first);
  ASSERT_EQ(checkpoint.tensors().size(), 3U);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.find("c")->file, kShard2);
  EXPECT_EQ(checkpoint.find("d"), nullptr);
  EXPECT_EQ(checkpoint.tensor("a").data<float>()[1], 4);
  EXPECT_EQ(checkpoint.tensor("c").data<float>()[0], 5);
  EXPECT_EQ(checkpoint.tensor("c").raw(), checkpoint.tensor("c").raw());
  EXPECT_EQ(checkpoint.tensor("c").name().data(), checkpoint.find("c")->name.data());
  expect_error([&] { checkpoint.tensor("d"); }, "has no tensor \"d\"");
}

// MiniMax-AI/MiniMax-01#42: 837 s of loading in silence.
TEST_F(ShardedCheckpoint, Complaint29_LoadsWithProgress) {
  class Recorder : public Progress {
   public:
    void advance(int64_t bytes) override { bytes_ += bytes; }
    int64_t bytes_ = 0;
  };
  Checkpoint checkpoint = Checkpoint::open(dir_.path());
  Recorder recorder;
  for (const auto& info : checkpoint.tensors()) load_tensor(checkpoint, info, recorder);
  EXPECT_EQ(recorder.bytes_, 24);
}

TEST(Area, CountsWhatAtLeastOneCovers) {
  EXPECT_EQ(covered_elements({}), 0);
  const std::vector<Area> apart = {{{0, 2}, {0, 3}}, {{2, 4}, {3, 5}}};
  EXPECT_EQ(covered_elements(apart), 10);
  const std::vector<Area> over = {{{0, 4}, {0, 4}}, {{2, 6}, {2, 6}}, {{0, 6}, {3, 4}}, {{1, 2}, {1, 2}}};
  EXPECT_EQ(covered_elements(over), 16 + 16 - 4);
  const std::vector<Area> same = {{{1, 3}, {0, 7}}, {{1, 3}, {0, 7}}};
  EXPECT_EQ(covered_elements(same), 14);
}

// Rows further apart than a page, closer than one, and whole; what two parts share counts once.
TEST(LoadPart, CountsDistinctBytes) {
  const TempDir dir;
  std::vector<float> wide(16 * 2048);
  std::vector<float> narrow(16 * 24);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<float>(i);
  const std::vector<NamedTensor> tensors = {{"wide", Tensor(wide.data(), DType::kF32, {16, 2048})},
                                            {"narrow", Tensor(narrow.data(), DType::kF32, {2, 8, 24})}};
  write_safetensors(dir.path() / kWeightsFile, tensors);
  Checkpoint checkpoint = Checkpoint::open(dir.path());
  Progress silent;
  const auto load = [&](const char* name, const Tensor& part, const Area& area) {
    load_part(checkpoint, *checkpoint.find(name), part, area, silent);
  };
  const Tensor view = checkpoint.tensor("wide");
  load("wide", view.slice(0, 2, 10).slice(1, 100, 300), {{2, 10}, {100, 300}});
  EXPECT_EQ(view.row<float>(9)[299], wide[9 * 2048 + 299]);
  EXPECT_EQ(checkpoint.loaded_bytes(), 8 * 200 * 4);
  load("wide", view.slice(0, 5, 6), {{5, 6}, {0, 2048}});
  EXPECT_EQ(checkpoint.loaded_bytes(), (7 * 200 + 2048) * 4);
  const Tensor second = checkpoint.tensor("narrow").select(1);
  load("narrow", second.slice(1, 3, 5), {{8, 16}, {3, 5}});
  load("narrow", second.slice(1, 5, 5), {{8, 16}, {5, 5}});
  EXPECT_EQ(checkpoint.loaded_bytes(), (7 * 200 + 2048 + 16) * 4);
  load_tensor(checkpoint, *checkpoint.find("narrow"), silent);
  EXPECT_EQ(checkpoint.loaded_bytes(), (7 * 200 + 2048 + 2 * 8 * 24) * 4);
  EXPECT_THROW(load("wide", view, {{0, 1}, {0, 2048}}), InternalError);
}

TEST_F(ShardedCheckpoint, TheIndexWinsOverASingleFile) {
  dir_.write(kWeightsFile, "not read");
  EXPECT_EQ(Checkpoint::open(dir_.path()).tensors().size(), 3U);
}

TEST_F(ShardedCheckpoint, ReportsAllDisagreementsTogether) {
  write_index({{"a", kShard2}, {"c", kShard2}, {"x", kShard1}, {"y", "model-3.safetensors"}});
  expect_open_error("index and shards disagree: 5 problems: ");
  expect_open_error("model-3.safetensors: no such file");
  expect_open_error("tensor a is not in model-00002-of-00002.safetensors, where the index puts it");
  expect_open_error("tensor x is not in model-00001-of-00002.safetensors, where the index puts it");
  expect_open_error("tensor a in model-00001-of-00002.safetensors is not in the index");
  expect_open_error("tensor b in model-00001-of-00002.safetensors is not in the index");
}

TEST_F(ShardedCheckpoint, NamesEveryDamagedShard) {
  std::filesystem::resize_file(dir_.path() / kShard1, std::filesystem::file_size(dir_.path() / kShard1) - 1);
  dir_.write(kShard2, "short");
  expect_open_error(
      "model-00001-of-00002.safetensors: tensor \"a\" ends at byte 16 of the data but the file");
  expect_open_error("model-00002-of-00002.safetensors: has 5 bytes, fewer than the 8");
  expect_open_error(": 2 problems: ");
}

TEST_F(ShardedCheckpoint, RefusesFileNamesThatLeaveTheDirectory) {
  for (const char* name :
       {"../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "", "a\\b"}) {
    write_index({{"a", name}});
    expect_open_error("expected the plain name of a file in the same directory");
  }
}

TEST_F(ShardedCheckpoint, RefusesABrokenIndex) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "not valid JSON"},
      {"[]", "holds a JSON array; expected an object"},
      {"{}", "has no \"weight_map\""},
      {R"({"weight_map": []})", "has no \"weight_map\""},
      {R"({"weight_map": {}})", "has no \"weight_map\""},
      {R"({"weight_map": {"a": 1}})", "tensor \"a\" is mapped to a JSON number"},
      {R"({"weight_map": {"a": "f", "a": "g"}})", "JSON key \"a\" appears twice"},
  };
  for (const auto& [text, message] : cases) {
    dir_.write(kIndexFile, text);
    expect_open_error(message);
  }
}

TEST(Checkpoint, NamesWhatIsNoModelDirectory) {
  const TempDir dir;
  expect_error([&] { Checkpoint::open(dir.path() / "absent"); }, "absent: no such directory");
  expect_error([&] { Checkpoint::open(dir.write("file", "x")); }, "file: is no directory");
  expect_error([&] { Checkpoint::open(dir.path()); }, "holds neither model.safetensors nor");
}

TEST(Checkpoint, NamesAFileWhoseStateIsUnknown) {
  // A symbolic link to itself cannot be followed by anyone, the superuser included.
  const TempDir dir;
  std::filesystem::create_symlink(kIndexFile, dir.path() / kIndexFile);
  expect_error([&] { Checkpoint::open(dir.path()); },
               "model.safetensors.index.json: cannot be read: Too many");
}

TEST(Checkpoint, ReadsConfigsWithoutWeights) {
  const TempDir dir;
  expect_error([&] { read_config(dir.path()); }, "config.json: no such file");
  EXPECT_TRUE(read_generation_config(dir.path()).empty());
  dir.write(kConfigFile, R"({"vocab_size": 3})");
  dir.write(kGenerationConfigFile, R"({"temperature": 1.0})");
  EXPECT_EQ(read_config(dir.path())["vocab_size"], 3);
  EXPECT_EQ(read_generation_config(dir.path())["temperature"], 1.0);
}

std::string single_file(std::string_view header, std::string_view data) {
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  return bytes.append(header).append(data);
}

TEST(Checkpoint, CopiesMisalignedTensorsOnly) {
  const TempDir dir;
  // The header has 7 + 8k bytes, so that the data begins at an odd address.
  std::string header = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                       R"("b":{"dtype":"I16","shape":[2],"data_offsets":[2,6]}})";
  while (header.size() % 8 != 7) header += ' ';
  dir.write(kWeightsFile, single_file(header, std::string_view("\1\2\3\0\4\0", 6)));
  Checkpoint checkpoint = Checkpoint::open(dir.path());
  const Tensor a = checkpoint.tensor("a");
  const Tensor b = checkpoint.tensor("b");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % 2, 1U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.raw()) % 2, 0U);
  EXPECT_EQ(b.data<int16_t>()[0], 3);
  EXPECT_EQ(b.data<int16_t>()[1], 4);
  EXPECT_EQ(checkpoint.tensor("b").raw(), b.raw());
}

TEST(Checkpoint, GivesScalarsAndRefusesHighRanks) {
  const TempDir dir;
  dir.write(kWeightsFile, single_file(R"({"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                                      R"("r":{"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[1,2]}})",
                                      "\5\6"));
  Checkpoint checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint.tensor("s").dim(0), 1);
  expect_error([&] { checkpoint.tensor("r"); }, "tensor \"r\" has 6 dimensions; at most 5");
}

}  // namespace
}  // namespace minimax::formats
