// The lightning attention kernels for Python: tensors come in through DLPack, from any library that speaks
// it.
#include <cuda_runtime_api.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/cuda/lightning.h"

namespace nb = nanobind;

namespace {

using minimax::cuda::Element;
using minimax::cuda::Rows;
using Array = nb::ndarray<>;

struct Kind {
  nb::dlpack::dtype type;
  const char* name;
};

constexpr uint8_t code(nb::dlpack::dtype_code value) { return static_cast<uint8_t>(value); }
constexpr Kind kF32 = {{code(nb::dlpack::dtype_code::Float), 32, 1}, "float32"};
constexpr Kind kBF16 = {{code(nb::dlpack::dtype_code::Bfloat), 16, 1}, "bfloat16"};
constexpr Kind kI32 = {{code(nb::dlpack::dtype_code::Int), 32, 1}, "int32"};

std::string type_name(nb::dlpack::dtype type) {
  for (const Kind& kind : {kF32, kBF16, kI32}) {
    if (type == kind.type) return kind.name;
  }
  const char* names[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const std::string base =
      type.code < std::size(names) ? names[type.code] : "type " + std::to_string(type.code);
  return base + std::to_string(type.bits);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::vector<int64_t> shape_of(const Array& array) {
  std::vector<int64_t> shape;
  for (std::size_t i = 0; i < array.ndim(); ++i) shape.push_back(static_cast<int64_t>(array.shape(i)));
  return shape;
}

std::string device_text(const Array& array) {
  const bool is_cuda = array.device_type() == nb::device::cuda::value;
  return is_cuda ? "cuda:" + std::to_string(array.device_id())
                 : "device type " + std::to_string(array.device_type());
}

std::string describe(const char* name, const Array& array) {
  return std::string(name) + " is " + type_name(array.dtype()) + " " + shape_text(shape_of(array)) + " on " +
         device_text(array);
}

[[noreturn]] void refuse(const char* name, const Array& array, const std::string& expected) {
  throw nb::value_error((describe(name, array) + "; expected " + expected).c_str());
}

// What every argument is compared with: the first one's sizes and device.
struct Batch {
  int64_t tokens;
  int heads;
  int head_dim;
  Kind kind;
  int device;

  std::string on_device() const { return " on cuda:" + std::to_string(device); }
};

bool is_dense(const Array& array) {
  int64_t stride = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) > 1 && array.stride(i) != stride) return false;
    stride *= static_cast<int64_t>(array.shape(i));
  }
  return true;
}

Rows rows_of(const char* name, const Array& array, const Batch& batch) {
  const std::vector<int64_t> shape = {batch.tokens, batch.heads, batch.head_dim};
  const std::string expected = std::string(batch.kind.name) + " " + shape_text(shape) + batch.on_device();
  if (shape_of(array) != shape || array.dtype() != batch.kind.type ||
      array.device_type() != nb::device::cuda::value || array.device_id() != batch.device) {
    refuse(name, array, expected);
  }
  if (batch.head_dim > 1 && array.stride(2) != 1)
    refuse(name, array, expected + " with a dense last dimension");
  if (array.stride(0) < 0 || array.stride(1) < 0)
    refuse(name, array, expected + " with strides of at least 0");
  return {array.data(), array.stride(0), array.stride(1)};
}

Batch batch_of(const Array& q) {
  const bool is_f32 = q.dtype() == kF32.type;
  if (q.ndim() != 3 || (!is_f32 && q.dtype() != kBF16.type) || q.device_type() != nb::device::cuda::value ||
      q.shape(1) < 1 || q.shape(2) < 1 || q.shape(2) > 256) {
    refuse("q", q, "bfloat16 or float32 [tokens, heads, head_dim] on a CUDA device, head_dim 1 to 256");
  }
  return {static_cast<int64_t>(q.shape(0)), static_cast<int>(q.shape(1)), static_cast<int>(q.shape(2)),
          is_f32 ? kF32 : kBF16, q.device_id()};
}

// A dense tensor of this shape; -1 in it stands for any size, `label` says which.
void* dense(const char* name, const Array& array, const Kind& kind, const std::vector<int64_t>& shape,
            const std::string& label, const Batch& batch) {
  bool fits = array.ndim() == shape.size() && array.dtype() == kind.type && is_dense(array) &&
              array.device_type() == nb::device::cuda::value && array.device_id() == batch.device;
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] < 0 || shape[i] == static_cast<int64_t>(array.shape(i));
  }
  if (!fits) refuse(name, array, "dense " + std::string(kind.name) + " " + label + batch.on_device());
  return array.data();
}

void* state_of(const Array& state, const Kind& kind, const Batch& batch) {
  const std::string sizes = std::to_string(batch.heads) + ", " + std::to_string(batch.head_dim) + ", " +
                            std::to_string(batch.head_dim) + "]";
  void* data = dense("state", state, kind, {-1, batch.heads, batch.head_dim, batch.head_dim},
                     "[slots, " + sizes, batch);
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0) refuse("state", state, "memory at a multiple of 16 bytes");
  return data;
}

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Makes a device current while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

// Memory in the stream's order.
class StreamMemory {
 public:
  StreamMemory(int64_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes > 0) check(cudaMallocAsync(&data_, static_cast<std::size_t>(bytes), stream), "workspace");
  }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  ~StreamMemory() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

// The kernels that this device runs best, or those asked for.
int kernels_for(int device, std::optional<int> sm) {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  if (major < 8) {
    throw std::runtime_error("cuda:" + std::to_string(device) + " has compute capability " +
                             std::to_string(major) + ".x; expected 8.0 or newer");
  }
  const int best = major == 9 ? 90 : 80;
  if (sm.has_value() && *sm != 80 && *sm != best) {
    throw nb::value_error(("sm is " + std::to_string(*sm) + "; expected 80" + (best == 90 ? " or 90" : "") +
                           " on cuda:" + std::to_string(device))
                              .c_str());
  }
  return sm.value_or(best);
}

Element element_of(const Batch& batch) {
  return batch.kind.type == kF32.type ? Element::kF32 : Element::kBF16;
}

void lightning_prefill(const Array& q, const Array& k, const Array& v, const Array& decay, const Array& state,
                       const Array& read_slots, const Array& write_slots, const Array& query_starts,
                       const Array& out, const std::optional<Array>& workspace, uintptr_t stream,
                       std::optional<int> sm, const std::optional<Array>& checkpoint_rows,
                       const std::optional<Array>& checkpoint_slots) {
  const Batch batch = batch_of(q);
  minimax::cuda::LightningPrefillArgs args;
  args.q = rows_of("q", q, batch);
  args.k = rows_of("k", k, batch);
  args.v = rows_of("v", v, batch);
  args.out = rows_of("out", out, batch);
  args.decay = static_cast<const float*>(
      dense("decay", decay, kF32, {batch.heads}, "[" + std::to_string(batch.heads) + "]", batch));
  args.state = static_cast<float*>(state_of(state, kF32, batch));
  args.read_slots =
      static_cast<const int32_t*>(dense("read_slots", read_slots, kI32, {-1}, "[sequences]", batch));
  args.num_sequences = static_cast<int64_t>(read_slots.shape(0));
  args.write_slots = static_cast<const int32_t*>(
      dense("write_slots", write_slots, kI32, {args.num_sequences}, shape_text({args.num_sequences}), batch));
  args.query_starts =
      static_cast<const int32_t*>(dense("query_starts", query_starts, kI32, {args.num_sequences + 1},
                                        shape_text({args.num_sequences + 1}), batch));
  if (checkpoint_rows.has_value() != checkpoint_slots.has_value())
    throw nb::value_error("checkpoint_rows and checkpoint_slots: give both or none");
  if (checkpoint_rows.has_value()) {
    args.checkpoint_rows =
        static_cast<const int32_t*>(dense("checkpoint_rows", *checkpoint_rows, kI32, {args.num_sequences, -1},
                                          "[sequences, checkpoints]", batch));
    args.num_checkpoints = static_cast<int>(checkpoint_rows->shape(1));
    const std::vector<int64_t> shape = {args.num_sequences, args.num_checkpoints};
    args.checkpoint_slots = static_cast<const int32_t*>(
        dense("checkpoint_slots", *checkpoint_slots, kI32, shape, shape_text(shape), batch));
  }
  args.num_tokens = batch.tokens;
  args.num_heads = batch.heads;
  args.head_dim = batch.head_dim;
  args.element = element_of(batch);
  const DeviceScope scope(batch.device);
  args.sm = kernels_for(batch.device, sm);
  args.workspace_bytes = minimax::cuda::lightning_prefill_workspace_bytes(
      args.num_tokens, args.num_sequences, args.num_heads, args.head_dim, args.element, args.sm);
  const auto cuda_stream = reinterpret_cast<cudaStream_t>(stream);
  const StreamMemory own(workspace.has_value() ? 0 : args.workspace_bytes, cuda_stream);
  args.workspace = own.data();
  if (workspace.has_value()) {
    const bool fits = workspace->device_type() == nb::device::cuda::value &&
                      workspace->device_id() == batch.device && is_dense(*workspace) &&
                      static_cast<int64_t>(workspace->nbytes()) >= args.workspace_bytes &&
                      reinterpret_cast<uintptr_t>(workspace->data()) % 16 == 0;
    if (!fits) {
      refuse("workspace", *workspace,
             "at least " + std::to_string(args.workspace_bytes) + " dense bytes, 16-byte aligned," +
                 batch.on_device());
    }
    args.workspace = workspace->data();
  }
  check(minimax::cuda::lightning_prefill(args, cuda_stream), "lightning_prefill");
}

int64_t prefill_workspace_bytes(int64_t tokens, int64_t sequences, int heads, int head_dim, bool is_bfloat16,
                                int sm) {
  return minimax::cuda::lightning_prefill_workspace_bytes(tokens, sequences, heads, head_dim,
                                                          is_bfloat16 ? Element::kBF16 : Element::kF32, sm);
}

void lightning_decode(const Array& q, const Array& k, const Array& v, const Array& decay, const Array& state,
                      const Array& read_slots, const Array& write_slots, const Array& out, uintptr_t stream) {
  const Batch batch = batch_of(q);
  minimax::cuda::LightningDecodeArgs args;
  args.q = rows_of("q", q, batch);
  args.k = rows_of("k", k, batch);
  args.v = rows_of("v", v, batch);
  args.out = rows_of("out", out, batch);
  args.decay = static_cast<const float*>(
      dense("decay", decay, kF32, {batch.heads}, "[" + std::to_string(batch.heads) + "]", batch));
  args.is_state_bf16 = state.dtype() == kBF16.type;
  args.state = state_of(state, args.is_state_bf16 ? kBF16 : kF32, batch);
  const std::string rows = shape_text({batch.tokens});
  args.read_slots =
      static_cast<const int32_t*>(dense("read_slots", read_slots, kI32, {batch.tokens}, rows, batch));
  args.write_slots =
      static_cast<const int32_t*>(dense("write_slots", write_slots, kI32, {batch.tokens}, rows, batch));
  args.batch = batch.tokens;
  args.num_heads = batch.heads;
  args.head_dim = batch.head_dim;
  args.element = element_of(batch);
  const DeviceScope scope(batch.device);
  kernels_for(batch.device, std::nullopt);
  check(minimax::cuda::lightning_decode(args, reinterpret_cast<cudaStream_t>(stream)), "lightning_decode");
}

constexpr const char* kPrefillDoc =
    R"(Lightning attention over a ragged batch of sequences, written to out.

Per head: S = exp(-decay) S + k^T v, out = q S, the newest token undecayed. Nothing is scaled.

q, k, v, out   [tokens, heads, head_dim] bfloat16 or float32, last dimension dense, other strides free; head_dim up to
               256. bfloat16 of 64 or 128 at multiples of 16 bytes runs on tensor cores, all else is slow.
decay          [heads] float32, >= 0
state          [slots, heads, head_dim (key), head_dim (value)] float32, updated in place
read_slots     [sequences] int32: the slot a sequence continues, -1: it starts from zero
write_slots    [sequences] int32: the slot that takes its state, -1: none. It may be the one read, but no slot that one
               sequence writes may be read or written by another.
query_starts   [sequences + 1] int32: sequence b has the rows query_starts[b] to query_starts[b + 1] - 1. Rows beyond
               the last become zero in out.
workspace      device memory of prefill_workspace_bytes(); None: taken from the stream's pool for the call
stream         a cudaStream_t as an integer, e.g. torch.cuda.current_stream().cuda_stream
sm             90 (TMA, wgmma; capability 9.0 alone) or 80; None: the better one
checkpoint_rows, checkpoint_slots
               [sequences, checkpoints] int32: the state after so many rows of a sequence is left in this slot too, -1:
               nowhere. Rows ascend strictly from 1; those beyond the sequence's last (2**31 - 1 fills up) leave nothing.

Contents on the device are not checked. Returns as soon as the work is queued; the tensors must live until it is done.
Raises ValueError, which names the argument, its shape and what is expected.)";

constexpr const char* kDecodeDoc =
    R"(One token of lightning attention for each sequence of a batch, written to out.

q, k, v, out   [batch, heads, head_dim], as for lightning_prefill
decay          [heads] float32, >= 0
state          [slots, heads, head_dim (key), head_dim (value)] float32 or bfloat16, updated in place
read_slots     [batch] int32: the slot a row continues; -1: padding, its out becomes zero and no state is touched
write_slots    [batch] int32: the slot that takes the new state, -1: none
stream         a cudaStream_t as an integer)";

}  // namespace

NB_MODULE(minimax_kernels, m) {
  m.doc() = "Lightning attention kernels for CUDA, over tensors of any library with DLPack.";
  m.def("lightning_prefill", &lightning_prefill, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("decay"),
        nb::arg("state"), nb::arg("read_slots"), nb::arg("write_slots"), nb::arg("query_starts"),
        nb::arg("out"), nb::arg("workspace") = nb::none(), nb::arg("stream") = 0, nb::arg("sm") = nb::none(),
        nb::arg("checkpoint_rows") = nb::none(), nb::arg("checkpoint_slots") = nb::none(), kPrefillDoc);
  m.def("prefill_workspace_bytes", &prefill_workspace_bytes, nb::arg("tokens"), nb::arg("sequences"),
        nb::arg("heads"), nb::arg("head_dim"), nb::arg("is_bfloat16") = true, nb::arg("sm") = 90,
        "Bytes of workspace that lightning_prefill needs for these sizes.");
  m.def("lightning_decode", &lightning_decode, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("decay"),
        nb::arg("state"), nb::arg("read_slots"), nb::arg("write_slots"), nb::arg("out"),
        nb::arg("stream") = 0, kDecodeDoc);
}
