#include "core/host_memory.h"

#include <sys/mman.h>

#include <fstream>
#include <string>

#include "core/error.h"

namespace minimax {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20U;

}  // namespace

HostMemory::HostMemory(int64_t bytes) : bytes_(bytes) {
  if (bytes <= 0) return;
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    bytes_ = 0;
    fail(
        "cannot reserve {} bytes of memory; use a shorter context, fewer layers or a machine with more "
        "memory",
        bytes);
  }
  // Best effort: with 4 KiB pages this memory is read at about half the speed (docs/performance.md).
  if (bytes >= kHugePageBytes) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
}

HostMemory::~HostMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

int64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string key; file >> key;) {
    int64_t kib = 0;
    if (key == "MemAvailable:" && file >> kib) return kib * 1024;
    file.ignore(256, '\n');
  }
  return 0;
}

}  // namespace minimax
