#include "core/memory.h"

#include "core/host_memory.h"

namespace minimax {

Memory Memory::host(int64_t bytes) {
  auto pages = std::make_shared<HostMemory>(bytes);
  std::byte* data = pages->data();
  return {data, bytes, Device{}, [pages = std::move(pages)](std::byte*) mutable { pages.reset(); }};
}

}  // namespace minimax
