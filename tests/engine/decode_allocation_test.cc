// A decode step takes no memory from the heap: this binary counts every operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "engine/session.h"
#include "formats/checkpoint.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Never inlined: where the compiler sees free() but not malloc(), it warns of a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace minimax {
namespace {

TEST(DecodeStep, AllocatesNothing) {
  const std::filesystem::path folder = std::filesystem::path(MINIMAX_SOURCE_DIR) / "models/demo-m1";
  formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  formats::Progress silent;
  const auto model = models::load_model(formats::read_config(folder), {DType::kBF16}, checkpoint, silent);
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  engine::Session session(*model, *backend, {64, 32, 1});
  const int32_t prompt[] = {1, 2, 3, 4, 5};
  session.append(prompt);
  const int32_t token = 7;
  session.append({&token, 1});
  const int64_t before = allocations;
  ASSERT_GT(before, 0);
  for (int i = 0; i < 10; ++i) session.append({&token, 1});
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace minimax
