// What every op shares: the context it runs in, its cost, and the checked door.
//
// An op is an argument struct with
//   check()  the contract on shapes, dtypes and aliasing; throws InternalError,
//   cost()   bytes that must move and floating-point operations, for benchmarks,
//   visit()  names its tensors and scalars, for traces,
// and a free function of the same name, its only door. The door checks, records, gives the backend scratch
// memory and makes one virtual call. Backends never check again and models never see a device.
//
// Graph safety, for every op: no allocation, no host synchronisation, no host read of device data; launch
// geometry follows from shapes alone. What changes from step to step is content of buffers.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/arena.h"
#include "core/tensor.h"
#include "quant/weight.h"

namespace minimax::ops {

class Backend;

struct Cost {
  double bytes = 0;  // each input read once, each output written once
  double flops = 0;
};

// One executed op as a trace holds it. Two decode steps of one batch size must give equal records.
struct OpRecord {
  struct Operand {
    std::string_view role;
    Tensor tensor;
  };
  std::string_view op;
  std::vector<Operand> operands;
  std::vector<double> scalars;
  Cost cost;
};

class Tracer {
 public:
  virtual ~Tracer() = default;
  virtual void on_op(const OpRecord& record) = 0;
  // After the backend has run it; asynchronous backends may still be computing.
  virtual void on_done(const OpRecord& record) { static_cast<void>(record); }
};

// The context of one step. A planning arena makes the step a dry run: everything but the arithmetic.
struct OpContext {
  Backend& backend;
  Arena& arena;
  Tracer* tracer = nullptr;
};

// Scratch memory of one op call, sized by Backend::workspace_bytes.
struct Workspace {
  std::byte* data = nullptr;
  int64_t bytes = 0;
};

class RecordBuilder {
 public:
  explicit RecordBuilder(std::string_view op) { record_.op = op; }
  void operator()(std::string_view role, const Tensor& tensor) {
    if (tensor.defined()) record_.operands.push_back({role, tensor});
  }
  void operator()(std::string_view role, const quant::Weight& weight) {
    (*this)(role, weight.values);
    (*this)(role, weight.scales);
  }
  void operator()(std::string_view, double scalar) { record_.scalars.push_back(scalar); }
  OpRecord& record() { return record_; }

 private:
  OpRecord record_;
};

// Throws when an operand's arena scope has ended or it lives on another device than the backend.
void check_operands(const OpContext& context, const OpRecord& record);

// The dtypes activations come in.
inline bool is_activation(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

// The dtypes KV and index caches come in.
inline bool is_cache(DType dtype) { return is_activation(dtype) || dtype == DType::kF8E4M3; }

}  // namespace minimax::ops
