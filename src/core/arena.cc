#include "core/arena.h"

#include <algorithm>

namespace minimax {
namespace {

// Base of the addresses a planning arena hands out: aligned, and never mapped on the systems we run on.
constexpr uintptr_t kPlanningBase = uintptr_t{1} << 20U << 36U;

}  // namespace

Arena::Arena(int64_t capacity_bytes)
    : memory_(Memory::host(std::max(capacity_bytes, kAlignment))), capacity_(capacity_bytes) {}

Arena::Arena(Memory memory)
    : memory_(std::move(memory)), device_(memory_.device()), capacity_(memory_.size_bytes()) {}

std::byte* Arena::base() const {
  return is_planning() ? reinterpret_cast<std::byte*>(kPlanningBase) : memory_.data();
}

std::byte* Arena::bytes(int64_t count) {
  MM_CHECK(count >= 0, "arena: {} bytes asked", count);
  std::byte* result = base() + used_;
  used_ += (count + kAlignment - 1) / kAlignment * kAlignment;
  peak_ = std::max(peak_, used_);
  MM_CHECK(is_planning() || used_ <= capacity_, "arena: {} bytes in use of {} planned", used_, capacity_);
  return result;
}

Tensor Arena::tensor(std::string_view name, DType dtype, std::initializer_list<int64_t> shape) {
  const Tensor view(base(), dtype, shape, name);
  return Tensor(bytes(view.size_bytes()), dtype, shape, name, device_);
}

bool Arena::is_alive(const void* data) const {
  const auto address = reinterpret_cast<uintptr_t>(data);
  const auto begin = reinterpret_cast<uintptr_t>(base());
  const auto reserved = static_cast<uintptr_t>(is_planning() ? peak_ : capacity_);
  if (address < begin || address >= begin + reserved) return true;
  return address < begin + static_cast<uintptr_t>(used_);
}

}  // namespace minimax
