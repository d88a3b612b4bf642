// Peak memory of a load, measured in a process of its own.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/safetensors_writer.h"
#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

constexpr int64_t kTensors = 15;
constexpr int64_t kTensorBytes = int64_t{20} << 20;

// A field of the process status, e.g. "VmHWM:", in bytes.
int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (!line.starts_with(field)) continue;
    std::istringstream words(line.substr(field.size()));
    int64_t kilobytes = 0;
    words >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

void write_checkpoint(const std::filesystem::path& path) {
  std::vector<char> bytes(static_cast<size_t>(kTensorBytes), 'x');
  std::vector<NamedTensor> tensors;
  for (int64_t i = 0; i < kTensors; ++i) {
    tensors.push_back({fmt::format("t{}", i), Tensor(bytes.data(), DType::kBF16, {kTensorBytes / 2})});
  }
  write_safetensors(path, tensors);
}

TEST(LoadMemory, PeakIsAtMostATenthAboveWhatIsKept) {
  const testing::TempDir dir;
  write_checkpoint(dir.path() / kWeightsFile);
  const int64_t before = status_bytes("VmRSS:");
  ASSERT_GT(before, 0);

  Checkpoint checkpoint = Checkpoint::open(dir.path());
  Progress silent;
  for (const auto& info : checkpoint.tensors()) load_tensor(checkpoint, info, silent);

  const int64_t kept = kTensors * kTensorBytes;
  const int64_t resident = status_bytes("VmRSS:") - before;
  const int64_t peak = status_bytes("VmHWM:") - before;
  RecordProperty("peak_bytes", std::to_string(peak));
  std::printf("kept %.1f MB, resident %.1f MB, peak %.1f MB\n", static_cast<double>(kept) / 1e6,
              static_cast<double>(resident) / 1e6, static_cast<double>(peak) / 1e6);
  EXPECT_GE(resident, kept);
  EXPECT_LE(peak, kept + kept / 10);
}

}  // namespace
}  // namespace minimax::formats
