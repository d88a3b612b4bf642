// A file mapped read-only into memory.
//
// The bytes stay valid for the life of the object. If another process shortens the file meanwhile, reading
// beyond its new end raises SIGBUS, except in `populate`, which reports it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace minimax::formats {

class MappedFile {
 public:
  // THROWS: Error naming the path when it is absent, no regular file, empty or not readable.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size);
  void unmap() noexcept;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Brings the pages of mapped memory in, so that later reads do not wait for the disk.
// THROWS: Error naming `what` when the pages cannot be read (disk error, file shortened).
void populate(std::span<const std::byte> memory, std::string_view what);

}  // namespace minimax::formats
