#include "formats/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"

namespace minimax::formats {
namespace {

constexpr size_t kHeaderAlignment = 8;

// A file that disappears unless `commit` renames it into place.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& target)
      : target_(target), path_(target.string() + fmt::format(".tmp{}", ::getpid())) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) fail_with_errno("create");
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!is_committed_) ::unlink(path_.c_str());
  }

  void write(const void* data, int64_t size) {
    const auto* bytes = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = ::write(fd_, bytes, static_cast<size_t>(size));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_with_errno("write");
      bytes += written;
      size -= written;
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail_with_errno("write");
    if (::close(std::exchange(fd_, -1)) != 0) fail_with_errno("write");
    if (::rename(path_.c_str(), target_.c_str()) != 0) fail_with_errno("rename its temporary file to");
    is_committed_ = true;
  }

 private:
  [[noreturn]] void fail_with_errno(std::string_view operation) const {
    fail("{}: cannot {} it: {}", target_.string(), operation, std::strerror(errno));
  }

  std::filesystem::path target_;
  std::filesystem::path path_;
  int fd_ = -1;
  bool is_committed_ = false;
};

std::string header_text(std::span<const NamedTensor> tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    MM_CHECK(!header.contains(name), "write_safetensors: tensor {} is given twice", name);
    MM_CHECK(tensor.is_contiguous(), "write_safetensors: {} is not contiguous", tensor.describe());
    const int64_t end = offset + tensor.size_bytes();
    header[name] = {{"dtype", minimax::name(tensor.dtype())},
                    {"shape", std::vector<int64_t>(tensor.shape().begin(), tensor.shape().end())},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = header_text(tensors, metadata);
  std::array<unsigned char, 8> length{};
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<unsigned char>(header.size() >> (8 * i));

  TemporaryFile file(path);
  file.write(length.data(), static_cast<int64_t>(length.size()));
  file.write(header.data(), static_cast<int64_t>(header.size()));
  for (const auto& [name, tensor] : tensors) file.write(tensor.raw(), tensor.size_bytes());
  file.commit();
}

}  // namespace minimax::formats
