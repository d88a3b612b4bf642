#include "formats/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

using testing::expect_error;
using testing::read_bytes;
using testing::TempDir;

size_t file_count(const std::filesystem::path& directory) {
  const std::filesystem::directory_iterator files(directory);
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TempDir dir;
  std::vector<float> a = {1, 2, 3, 4, 5, 6};
  std::vector<int64_t> b = {7};
  const std::vector<NamedTensor> tensors = {{"a \"quoted\"", Tensor(a.data(), DType::kF32, {2, 3})},
                                            {"b", Tensor(b.data(), DType::kI64, {1})}};
  write_safetensors(dir.path() / "model.safetensors", tensors, {{"made_by", "test"}});
  EXPECT_EQ(file_count(dir.path()), 1U);

  Checkpoint checkpoint = Checkpoint::open(dir.path());
  const Tensor read = checkpoint.tensor("a \"quoted\"");
  EXPECT_EQ(read.dim(1), 3);
  EXPECT_EQ(read.row<float>(1)[2], 6);
  EXPECT_EQ(checkpoint.tensor("b").data<int64_t>()[0], 7);

  const std::string bytes = read_bytes(dir.path() / "model.safetensors");
  const auto header = parse_safetensors_header(std::as_bytes(std::span(bytes)), "x");
  EXPECT_EQ(header.metadata.at("made_by"), "test");
  EXPECT_EQ(header.data_offset % 8, 0);
}

TEST(SafetensorsWriter, ReplacesAnOldFile) {
  const TempDir dir;
  const auto path = dir.write("out.safetensors", "old");
  std::vector<float> a = {1};
  write_safetensors(path, std::vector<NamedTensor>{{"a", Tensor(a.data(), DType::kF32, {1})}});
  EXPECT_GT(std::filesystem::file_size(path), 8U);
}

TEST(SafetensorsWriter, NamesTheFileItCannotCreate) {
  expect_error([] { write_safetensors("/nonexistent/dir/x.safetensors", {}); },
               "/nonexistent/dir/x.safetensors: cannot create it: No such file or directory");
}

TEST(SafetensorsWriter, AFullDiskLeavesTheOldFile) {
  const TempDir dir;
  const auto path = dir.write("out.safetensors", "old");
  std::vector<float> a(100'000);
  const std::vector<NamedTensor> tensors = {{"a", Tensor(a.data(), DType::kF32, {100'000})}};
  // A limit on file sizes stands for a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit small = old_limit;
  small.rlim_cur = 65536;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error([&] { write_safetensors(path, tensors); }, "cannot write it: File too large");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_EQ(read_bytes(path), "old");
  EXPECT_EQ(file_count(dir.path()), 1U);
}

TEST(SafetensorsWriter, ChecksItsCaller) {
  const TempDir dir;
  std::vector<float> a(6);
  const Tensor tensor(a.data(), DType::kF32, {2, 3});
  EXPECT_THROW(write_safetensors(dir.path() / "x", std::vector<NamedTensor>{{"a", tensor}, {"a", tensor}}),
               InternalError);
  EXPECT_THROW(write_safetensors(dir.path() / "x", std::vector<NamedTensor>{{"a", tensor.slice(1, 0, 2)}}),
               InternalError);
  EXPECT_EQ(file_count(dir.path()), 0U);
}

}  // namespace
}  // namespace minimax::formats
