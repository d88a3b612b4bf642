#include "formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

// Linux 5.14; older C libraries lack the name.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace minimax::formats {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { ::close(fd_); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int open_for_reading(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  if (errno == ENOENT) fail("{}: no such file; check the path or download it", path.string());
  if (errno == EACCES) fail("{}: not readable by this user; check the permissions", path.string());
  fail("{}: cannot open: {}", path.string(), std::strerror(errno));
}

size_t checked_size(int fd, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail("{}: cannot read its size: {}", path.string(), std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail("{}: is a directory; expected a file", path.string());
  if (!S_ISREG(info.st_mode)) fail("{}: is no regular file", path.string());
  if (info.st_size == 0) fail("{}: is empty; download it again", path.string());
  return static_cast<size_t>(info.st_size);
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) {
  const FileDescriptor fd(open_for_reading(path));
  const size_t size = checked_size(fd.get(), path);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) fail("{}: cannot map {} bytes: {}", path.string(), size, std::strerror(errno));
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(std::filesystem::path path, const std::byte* data, size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

MappedFile::~MappedFile() { unmap(); }

void MappedFile::unmap() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void populate(std::span<const std::byte> memory, std::string_view what) {
  if (memory.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(memory.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(memory.data()) + memory.size();
  if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) == 0) return;
  if (errno == EFAULT || errno == EIO) {
    fail("{}: cannot be read from disk; the file was shortened or the disk has an error", what);
  }
  // A kernel without MADV_POPULATE_READ: touch one byte of every page.
  for (size_t i = 0; i < memory.size(); i += page) {
    static_cast<void>(*static_cast<const volatile std::byte*>(&memory[i]));
  }
}

}  // namespace minimax::formats
