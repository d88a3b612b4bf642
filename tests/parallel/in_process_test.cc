// Sums and gathers of in-process ranks, and what happens to the others when one of them fails.
#include "parallel/in_process.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "ops/backend.h"

namespace minimax::parallel {
namespace {

// What a rank needs to call a Comm.
struct Step {
  std::unique_ptr<ops::Backend> backend = ops::make_reference_backend();
  Arena arena{64};
  ops::Tracer* tracer = nullptr;

  ops::OpContext context() { return {*backend, arena, tracer}; }
};

TEST(InProcess, SumsInTheOrderOfRanksWithTheSameBitsEverywhere) {
  for (const int64_t size : {1, 2, 3, 8}) {
    for (const int64_t n : {0, 1, 5, 1000}) {
      std::vector<std::vector<float>> x(static_cast<size_t>(size));
      run_ranks(size, [&](Comm& comm) {
        Step step;
        ops::OpContext context = step.context();
        std::vector<float>& mine = x[static_cast<size_t>(comm.rank())];
        for (int64_t i = 0; i < n; ++i) mine.push_back(0.1F * static_cast<float>(i + 7 * comm.rank()));
        for (int repeat = 0; repeat < 3; ++repeat)
          comm.all_reduce_sum(context, Tensor(mine.data(), DType::kF32, {n}));
      });
      for (int64_t i = 0; i < n; ++i) {
        float expected[8];
        for (int64_t r = 0; r < size; ++r) expected[r] = 0.1F * static_cast<float>(i + 7 * r);
        for (int repeat = 0; repeat < 3; ++repeat) {
          float sum = 0;
          for (int64_t r = 0; r < size; ++r) sum += expected[r];
          std::fill_n(expected, size, sum);
        }
        for (const auto& rank : x) EXPECT_EQ(rank[static_cast<size_t>(i)], expected[0]);
      }
    }
  }
}

TEST(InProcess, SumsBFloat16InF32) {
  std::vector<std::vector<bf16>> x(3);
  run_ranks(3, [&](Comm& comm) {
    Step step;
    ops::OpContext context = step.context();
    auto& mine = x[static_cast<size_t>(comm.rank())];
    // 256 + 1 is no BF16 number; 256 + 1 + 1 is.
    mine.assign(300, to_bf16(comm.rank() == 0 ? 256.0F : 1.0F));
    comm.all_reduce_sum(context, Tensor(mine.data(), DType::kBF16, {30, 10}));
  });
  for (const auto& rank : x) {
    for (const bf16 value : rank) EXPECT_EQ(to_float(value), 258);
  }
}

TEST(InProcess, GathersColumnsOfUnevenWidth) {
  const std::vector<int64_t> bounds = {0, 3, 3, 7};
  std::vector<std::vector<float>> x(3, std::vector<float>(2 * 9, -1));
  run_ranks(3, [&](Comm& comm) {
    Step step;
    ops::OpContext context = step.context();
    const Tensor all(x[static_cast<size_t>(comm.rank())].data(), DType::kF32, {2, 9});
    const Tensor mine = all.slice(1, 0, 7);
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t c = bounds[comm.rank()]; c < bounds[comm.rank() + 1]; ++c)
        mine.row<float>(t)[c] = static_cast<float>(10 * t + c);
    }
    comm.all_gather_columns(context, mine, bounds);
  });
  for (const auto& rank : x) {
    for (int64_t t = 0; t < 2; ++t) {
      for (int64_t c = 0; c < 9; ++c)
        EXPECT_EQ(rank[static_cast<size_t>(9 * t + c)], c < 7 ? static_cast<float>(10 * t + c) : -1);
    }
  }
}

class CountingTracer : public ops::Tracer {
 public:
  void on_op(const ops::OpRecord& record) override { ops.push_back(record.op); }
  std::vector<std::string_view> ops;
};

TEST(InProcess, IsTracedAndDoesNothingInADryRun) {
  InProcessGroup group(2);
  const auto backend = ops::make_reference_backend();
  Arena plan;
  CountingTracer tracer;
  ops::OpContext context{*backend, plan, &tracer};
  const Tensor x = plan.tensor("x", DType::kF32, {4, 2});
  const std::vector<int64_t> bounds = {0, 1, 2};
  // Nobody else is there to wait for.
  group.comm(0).all_reduce_sum(context, x);
  group.comm(0).all_gather_columns(context, x, bounds);
  EXPECT_EQ(tracer.ops, (std::vector<std::string_view>{"all_reduce_sum", "all_gather_columns"}));
}

TEST(InProcess, RefusesWhatItCannotSum) {
  run_ranks(1, [](Comm& comm) {
    Step step;
    ops::OpContext context = step.context();
    std::vector<float> x(12);
    const Tensor strided = Tensor(x.data(), DType::kF32, {3, 4}).slice(1, 0, 2);
    EXPECT_THROW(comm.all_reduce_sum(context, strided), InternalError);
    const std::vector<int64_t> too_few = {0, 1};
    EXPECT_THROW(comm.all_gather_columns(context, strided, too_few), InternalError);
  });
}

template <typename Body>
std::string error_of(int64_t size, const Body& body) {
  try {
    run_ranks(size, body);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(RunRanks, AFailingRankReachesAllOthers) {
  std::atomic<int> woken{0};
  const std::string error = error_of(4, [&](Comm& comm) {
    comm.barrier();
    if (comm.rank() == 2) fail("no memory left");
    try {
      comm.barrier();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("rank 2 of 4 failed: no memory left"), std::string::npos);
      ++woken;
    }
    // Still broken for who comes later.
    EXPECT_THROW(comm.barrier(), Error);
  });
  EXPECT_EQ(error, "no memory left");
  EXPECT_EQ(woken, 3);
}

TEST(RunRanks, ARankThatReturnsEarlyKeepsNobodyWaiting) {
  const std::string error = error_of(3, [&](Comm& comm) {
    if (comm.rank() == 1) return;
    comm.barrier();
  });
  EXPECT_NE(error.find("rank 1 of 3 ended"), std::string::npos) << error;
}

TEST(RunRanks, RanksThatDisagreeAreTold) {
  const std::string error = error_of(2, [&](Comm& comm) {
    Step step;
    ops::OpContext context = step.context();
    std::vector<float> x(8);
    comm.all_reduce_sum(context, Tensor(x.data(), DType::kF32, {4 + comm.rank()}));
  });
  EXPECT_NE(error.find("all_reduce_sum on [4]"), std::string::npos) << error;
  EXPECT_NE(error.find("all_reduce_sum on [5]"), std::string::npos) << error;
}

TEST(RunRanks, EndWithoutWaitingForEachOther) {
  std::atomic<int> ended{0};
  run_ranks(8, [&](Comm& comm) {
    comm.barrier();
    ++ended;
  });
  EXPECT_EQ(ended, 8);
}

}  // namespace
}  // namespace minimax::parallel
