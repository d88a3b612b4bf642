// Arena and HostMemory.
#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "core/arena.h"
#include "core/host_memory.h"

namespace minimax {
namespace {

uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

TEST(ArenaTest, EveryAllocationIsAlignedAndApart) {
  Arena arena(1024);
  const std::byte* first = arena.bytes(1);
  const std::byte* second = arena.bytes(65);
  const std::byte* third = arena.bytes(64);
  EXPECT_EQ(address(first) % Arena::kAlignment, 0U);
  EXPECT_EQ(second - first, 64);
  EXPECT_EQ(third - second, 128);
  EXPECT_EQ(arena.used_bytes(), 256);
}

TEST(ArenaTest, ATensorHasItsNameShapeAndWritableMemory) {
  Arena arena(4096);
  const Tensor t = arena.tensor("qkv", DType::kBF16, {3, 5});
  EXPECT_EQ(t.describe(), "[3, 5] BF16 qkv");
  std::memset(t.raw(), 0xab, static_cast<size_t>(t.size_bytes()));
  EXPECT_EQ(t.row<bf16>(2)[4].bits, 0xabab);
}

TEST(ArenaTest, AnEmptyTensorTakesNothing) {
  Arena arena(64);
  EXPECT_EQ(arena.tensor("none", DType::kF32, {0, 8}).numel(), 0);
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST(ArenaTest, AScopeFreesWhatCameAfterItsBegin) {
  Arena arena(1024);
  const std::byte* kept = arena.bytes(64);
  const std::byte* freed = nullptr;
  {
    const Arena::Scope outer(arena);
    freed = arena.bytes(64);
    {
      const Arena::Scope inner(arena);
      arena.bytes(256);
    }
    EXPECT_EQ(arena.used_bytes(), 128);
    EXPECT_TRUE(arena.is_alive(freed));
  }
  EXPECT_EQ(arena.used_bytes(), 64);
  EXPECT_EQ(arena.peak_bytes(), 384);
  EXPECT_TRUE(arena.is_alive(kept));
  EXPECT_FALSE(arena.is_alive(freed));
  EXPECT_EQ(arena.bytes(64), freed);
  EXPECT_TRUE(arena.is_alive(freed));
}

TEST(ArenaTest, MemoryOfOthersIsAlwaysAlive) {
  Arena arena(64);
  const int other = 0;
  EXPECT_TRUE(arena.is_alive(&other));
  EXPECT_TRUE(arena.is_alive(nullptr));
  EXPECT_TRUE(Arena().is_alive(&other));
}

TEST(ArenaTest, APlanMeasuresWhatTheRealArenaThenNeeds) {
  const auto step = [](Arena& arena) {
    const Arena::Scope scope(arena);
    arena.tensor("hidden", DType::kF32, {7, 33});
    const Arena::Scope inner(arena);
    arena.tensor("gate_up", DType::kBF16, {7, 129});
  };
  Arena plan;
  EXPECT_TRUE(plan.is_planning());
  step(plan);
  EXPECT_EQ(plan.used_bytes(), 0);

  Arena real(plan.peak_bytes());
  EXPECT_FALSE(real.is_planning());
  EXPECT_NO_THROW(step(real));
  EXPECT_EQ(real.peak_bytes(), plan.peak_bytes());
}

TEST(ArenaTest, APlanKnowsWhichAddressesAreAlive) {
  Arena plan;
  const std::byte* freed = nullptr;
  {
    const Arena::Scope scope(plan);
    freed = plan.bytes(100);
    EXPECT_TRUE(plan.is_alive(freed));
    EXPECT_EQ(address(freed) % Arena::kAlignment, 0U);
  }
  EXPECT_FALSE(plan.is_alive(freed));
}

TEST(ArenaTest, ExhaustionSaysHowMuchWasPlanned) {
  Arena arena(128);
  arena.bytes(128);
  try {
    arena.bytes(1);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("arena: 192 bytes in use of 128 planned"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(arena.bytes(-1), InternalError);
}

TEST(ArenaTest, MovingKeepsTheMemory) {
  Arena from(128);
  const std::byte* data = from.bytes(64);
  const Arena to = std::move(from);
  EXPECT_TRUE(to.is_alive(data));
  EXPECT_EQ(to.used_bytes(), 64);
}

TEST(HostMemoryTest, PagesAreZeroAndWritable) {
  const HostMemory memory(10000);
  EXPECT_EQ(memory.size_bytes(), 10000);
  EXPECT_EQ(memory.data()[0], std::byte{0});
  EXPECT_EQ(memory.data()[9999], std::byte{0});
  memory.data()[9999] = std::byte{7};
  EXPECT_EQ(memory.data()[9999], std::byte{7});
}

TEST(HostMemoryTest, NothingAskedIsNothingMapped) {
  EXPECT_EQ(HostMemory().data(), nullptr);
  EXPECT_EQ(HostMemory(0).data(), nullptr);
}

TEST(HostMemoryTest, AMoveHandsThePagesOver) {
  HostMemory first(4096);
  std::byte* data = first.data();
  HostMemory second(std::move(first));
  EXPECT_EQ(second.data(), data);
  HostMemory third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size_bytes(), 4096);
}

TEST(HostMemoryTest, AnAddressSpaceThatDoesNotExistIsAUserError) {
  EXPECT_THROW(HostMemory(int64_t{1} << 60), Error);
}

TEST(HostMemoryTest, TheSystemHasMemory) { EXPECT_GT(available_memory_bytes(), int64_t{1} << 20); }

}  // namespace
}  // namespace minimax
