#include "core/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

namespace minimax {
namespace {

std::vector<int64_t> dims(const Tensor& tensor) { return {tensor.shape().begin(), tensor.shape().end()}; }

std::vector<int64_t> strides(const Tensor& tensor) {
  std::vector<int64_t> result;
  for (int axis = 0; axis < tensor.rank(); ++axis) result.push_back(tensor.stride(axis));
  return result;
}

using Sizes = std::vector<int64_t>;

class TensorTest : public testing::Test {
 protected:
  TensorTest() { std::iota(values_.begin(), values_.end(), 0.0F); }

  std::array<float, 24> values_{};
  Tensor t_{values_.data(), DType::kF32, {2, 3, 4}, "t"};
};

TEST_F(TensorTest, IsContiguousWithTheSlowestDimensionFirst) {
  EXPECT_EQ(strides(t_), (Sizes{12, 4, 1}));
  EXPECT_EQ(t_.numel(), 24);
  EXPECT_EQ(t_.size_bytes(), 96);
  EXPECT_TRUE(t_.is_contiguous());
  EXPECT_TRUE(t_.has_dense_rows());
  EXPECT_EQ(t_.describe(), "[2, 3, 4] F32 t");
}

TEST_F(TensorTest, TheDefaultIsUndefinedAndEmpty) {
  const Tensor none;
  EXPECT_FALSE(none.defined());
  EXPECT_EQ(none.numel(), 0);
  EXPECT_FALSE(none.has_dense_rows());
  EXPECT_EQ(none.describe(), "[] F32 (unnamed)");
}

TEST_F(TensorTest, SlicesOfAnyAxisShareTheMemory) {
  const Tensor middle = t_.slice(1, 1, 3);
  EXPECT_EQ(dims(middle), (Sizes{2, 2, 4}));
  EXPECT_EQ(strides(middle), (Sizes{12, 4, 1}));
  EXPECT_EQ(middle.data<float>()[0], 4.0F);
  EXPECT_EQ(middle.row<float>(1)[0], 16.0F);
  EXPECT_FALSE(middle.is_contiguous());
  EXPECT_TRUE(middle.has_dense_rows());

  const Tensor column = t_.slice(2, 3, 4);
  EXPECT_EQ(column.data<float>()[0], 3.0F);
  EXPECT_TRUE(column.has_dense_rows());
  EXPECT_TRUE(t_.slice(0, 1, 2).is_contiguous());
}

TEST_F(TensorTest, AnEmptySliceIsContiguousAndMayStandAtTheEnd) {
  const Tensor none = t_.slice(0, 2, 2);
  EXPECT_EQ(none.numel(), 0);
  EXPECT_TRUE(none.is_contiguous());
  EXPECT_TRUE(t_.slice(1, 1, 1).is_contiguous());
}

TEST_F(TensorTest, SelectDropsTheFirstDimension) {
  const Tensor second = t_.select(1);
  EXPECT_EQ(dims(second), (Sizes{3, 4}));
  EXPECT_EQ(strides(second), (Sizes{4, 1}));
  EXPECT_EQ(second.data<float>()[0], 12.0F);
  EXPECT_EQ(second.select(2).data<float>()[3], 23.0F);
  EXPECT_EQ(second.name(), "t");
}

TEST_F(TensorTest, ReshapeKeepsTheElements) {
  const Tensor flat = t_.reshape({24});
  EXPECT_EQ(flat.data<float>()[23], 23.0F);
  EXPECT_EQ(dims(t_.reshape({1, 6, 1, 4})), (Sizes{1, 6, 1, 4}));
  EXPECT_EQ(t_.slice(0, 1, 2).reshape({12}).data<float>()[0], 12.0F);
}

TEST_F(TensorTest, SplitLastWorksOnAStridedView) {
  // The q part of rows that hold q, k and v side by side, seen as heads.
  const Tensor rows = t_.reshape({4, 6}).slice(1, 0, 4);
  const Tensor heads = rows.split_last(2, 2);
  EXPECT_EQ(dims(heads), (Sizes{4, 2, 2}));
  EXPECT_EQ(strides(heads), (Sizes{6, 2, 1}));
  EXPECT_EQ(heads.select(3).select(1).data<float>()[1], 21.0F);
}

TEST_F(TensorTest, NamedChangesTheNameAlone) {
  const Tensor other = t_.named("other");
  EXPECT_EQ(other.name(), "other");
  EXPECT_EQ(other.raw(), t_.raw());
  EXPECT_EQ(t_.name(), "t");
}

TEST_F(TensorTest, ViewsKeepTheDevice) {
  const Device cuda{.type = DeviceType::kCuda, .index = 1};
  const Tensor t(values_.data(), DType::kF32, {4, 6}, "t", cuda);
  EXPECT_EQ(t.reshape({24}).device(), cuda);
  EXPECT_EQ(t.slice(0, 1, 2).device(), cuda);
  EXPECT_EQ(to_string(cuda), "cuda:1");
  EXPECT_EQ(to_string(Device{}), "cpu");
}

TEST_F(TensorTest, SizesAre64Bit) {
  const Tensor large(values_.data(), DType::kBF16, {int64_t{1} << 20, int64_t{1} << 20});
  EXPECT_EQ(large.size_bytes(), int64_t{1} << 41);
}

TEST_F(TensorTest, MisuseThrowsBeforeMemoryIsTouched) {
  EXPECT_THROW(t_.slice(0, 0, 3), InternalError);
  EXPECT_THROW(t_.slice(0, -1, 1), InternalError);
  EXPECT_THROW(t_.slice(0, 2, 1), InternalError);
  EXPECT_THROW(t_.slice(3, 0, 1), InternalError);
  EXPECT_THROW(t_.slice(-1, 0, 1), InternalError);
  EXPECT_THROW(t_.select(2), InternalError);
  EXPECT_THROW(t_.select(-1), InternalError);
  EXPECT_THROW(t_.reshape({24}).select(0), InternalError);
  EXPECT_THROW(t_.reshape({23}), InternalError);
  EXPECT_THROW(t_.slice(1, 0, 2).reshape({16}), InternalError);
  EXPECT_THROW(t_.split_last(3, 2), InternalError);
  EXPECT_THROW(Tensor().split_last(1, 1), InternalError);
  EXPECT_THROW(t_.data<bf16>(), InternalError);
  EXPECT_THROW(Tensor(nullptr, DType::kF32, {1, -1}), InternalError);
  EXPECT_THROW(Tensor(nullptr, DType::kF32, {1, 1, 1, 1, 1, 1}), InternalError);
  EXPECT_THROW(Tensor(nullptr, DType::kF32, std::span<const int64_t>()), InternalError);
}

TEST_F(TensorTest, MessagesNameTheTensorAndBothShapes) {
  try {
    t_.reshape({5, 5});
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot view [2, 3, 4] F32 t as [5, 5]"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace minimax
