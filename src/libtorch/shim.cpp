// The parts of libtorch that the Rust binding does not reach, as plain C functions for
// src/libtorch.rs. No CUDA header is needed: a GPU's allocator is reached through libtorch's
// device-neutral interface.
//
// A function that can fail returns null on success, or a message that stays valid until the next
// call on the same thread. No exception passes into Rust.

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <c10/core/AllocatorConfig.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace {

template <typename Action>
const char* guarded(Action action) {
  thread_local std::string message;
  try {
    action();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {
    message = "an exception of unknown type";
  }
  return message.c_str();
}

at::DeviceAllocator* gpu_allocator() {
  return at::getDeviceAllocator(c10::DeviceType::CUDA);
}

using MaybeTensor = std::optional<at::Tensor>;

// oneDNN's product of f32 matrices, which libtorch uses for compiled graphs; null if this libtorch
// was built without oneDNN.
using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const MaybeTensor&, std::string_view,
                           c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

const c10::TypedOperatorHandle<Product>* find_product() {
  static const std::optional<c10::TypedOperatorHandle<Product>> found = [] {
    std::optional<c10::TypedOperatorHandle<Product>> typed;
    const auto handle = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (at::hasMKLDNN() && handle && handle->hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
      typed = handle->typed<Product>();
    }
    return typed;
  }();
  return found ? &*found : nullptr;
}

// y = x Wᵀ + b, without a graph. For large K the kernel moves the stack pointer into the heap: see
// src/signals.rs.
at::Tensor product(const at::Tensor& xs, const at::Tensor& weight, const MaybeTensor& bias) {
  at::AutoDispatchBelowADInplaceOrView below;
  return find_product()->call(xs, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

// The same product with a gradient for x: dL/dx = dL/dy W. The weight is frozen.
struct FrozenLinear : torch::autograd::Function<FrozenLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& xs, const at::Tensor& weight,
                            const MaybeTensor& bias) {
    context->save_for_backward({weight});
    return product(xs, weight, bias);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               const torch::autograd::tensor_list& gradients) {
    const at::Tensor weight = context->get_saved_variables()[0];
    return {product(gradients[0], weight.t(), std::nullopt), at::Tensor(), at::Tensor()};
  }
};

std::vector<at::Tensor> listed(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  for (size_t i = 0; i < count; i++) {
    list.push_back(*tensors[i]);
  }
  return list;
}

// The operations of src/libtorch/foreach.rs, by their numbers there.
enum Foreach : uint32_t { kScale, kRaise, kPart, kMul, kAdd, kSub, kDiv, kSqrt };

void compute_in_place(uint32_t operation, at::TensorList xs, at::TensorList ys, double scalar) {
  switch (operation) {
    case kScale: return at::_foreach_mul_(xs, scalar);
    case kRaise: return at::_foreach_add_(xs, scalar);
    case kPart: return at::_foreach_div_(xs, scalar);
    case kMul: return at::_foreach_mul_(xs, ys);
    case kAdd: return at::_foreach_add_(xs, ys);
    case kSub: return at::_foreach_sub_(xs, ys);
    case kDiv: return at::_foreach_div_(xs, ys);
    case kSqrt: return at::_foreach_sqrt_(xs);
    default: TORCH_CHECK(false, "unknown operation ", operation);
  }
}

std::vector<at::Tensor> compute(uint32_t operation, at::TensorList xs, at::TensorList ys, double scalar) {
  switch (operation) {
    case kScale: return at::_foreach_mul(xs, scalar);
    case kPart: return at::_foreach_div(xs, scalar);
    case kMul: return at::_foreach_mul(xs, ys);
    case kDiv: return at::_foreach_div(xs, ys);
    default: TORCH_CHECK(false, "operation ", operation, " is computed in place only");
  }
}

// The first entry is the sum over all pools.
constexpr size_t kAggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

extern "C" {

// TF32 in products of f32 matrices and in f32 convolutions on a GPU.
const char* oneactor_set_tf32(bool products, bool convolutions) {
  return guarded([&] {
    at::globalContext().setFloat32MatmulPrecision(products ? "high" : "highest");
    at::globalContext().setAllowTF32CuDNN(convolutions);
  });
}

const char* oneactor_tf32(bool* products, bool* convolutions) {
  return guarded([&] {
    *products = at::globalContext().allowTF32CuBLAS();
    *convolutions = at::globalContext().allowTF32CuDNN();
  });
}

// Kernels that scaled dot-product attention may choose from: bit 0 flash, 1 memory-efficient,
// 2 cuDNN, 3 plain mathematics.
const char* oneactor_set_attention(uint32_t kernels) {
  return guarded([&] {
    at::Context& context = at::globalContext();
    context.setSDPUseFlash(kernels & 1);
    context.setSDPUseMemEfficient(kernels & 2);
    context.setSDPUseCuDNN(kernels & 4);
    context.setSDPUseMath(kernels & 8);
  });
}

uint32_t oneactor_attention() {
  const at::Context& context = at::globalContext();
  return (context.userEnabledFlashSDP() ? 1u : 0u) | (context.userEnabledMemEfficientSDP() ? 2u : 0u) |
      (context.userEnabledCuDNNSDP() ? 4u : 0u) | (context.userEnabledMathSDP() ? 8u : 0u);
}

// Whether one of the allowed kernels can compute attention of these queries under this mask; a null
// mask means no mask. libtorch warns of each kernel that cannot; those warnings are suppressed
// here.
const char* oneactor_finds_attention(const at::Tensor* query, const at::Tensor* mask, bool* finds) {
  struct Silence : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  } silence;
  const c10::WarningUtils::WarningHandlerGuard quiet(&silence);
  return guarded([&] {
    try {
      at::_fused_sdp_choice(*query, *query, *query, mask == nullptr ? MaybeTensor() : *mask);
      *finds = true;
    } catch (const c10::Error& error) {
      if (std::string_view(error.what()).find("No available kernel") == std::string_view::npos) {
        throw;
      }
      *finds = false;
    }
  });
}

// The allocator's settings, in the format of PYTORCH_ALLOC_CONF.
const char* oneactor_set_allocator(const char* settings) {
  return guarded([&] { c10::CachingAllocator::setAllocatorSettings(settings); });
}

const char* oneactor_has_expandable_segments(bool* grows) {
  return guarded([&] { *grows = c10::CachingAllocator::AcceleratorAllocatorConfig::use_expandable_segments(); });
}

// y = x Wᵀ + b on a CPU in f32 by oneDNN: x [.., D_in], a frozen W [D_out, D_in], b [D_out] or
// null. `ys` stays null if this libtorch has no such product.
const char* oneactor_linear(at::Tensor** ys, const at::Tensor* xs, const at::Tensor* weight, const at::Tensor* bias) {
  return guarded([&] {
    if (find_product() == nullptr) {
      return;
    }
    const MaybeTensor added = bias == nullptr ? MaybeTensor() : MaybeTensor(*bias);
    const bool needs_graph = at::GradMode::is_enabled() && xs->requires_grad();
    *ys = new at::Tensor(needs_graph ? FrozenLinear::apply(*xs, *weight, added) : product(*xs, *weight, added));
  });
}

// An operation on each tensor of a list: in place if `results` is null, else with a new tensor for each. `ys` is
// the second list of an operation that has two.
const char* oneactor_foreach(uint32_t operation, size_t count, at::Tensor* const* xs, at::Tensor* const* ys,
                             double scalar, at::Tensor** results) {
  return guarded([&] {
    const auto first = listed(xs, count);
    const auto second = operation >= kMul && operation <= kDiv ? listed(ys, count) : std::vector<at::Tensor>();
    if (results == nullptr) {
      compute_in_place(operation, first, second, scalar);
      return;
    }
    auto computed = compute(operation, first, second, scalar);
    for (size_t i = 0; i < count; i++) {
      results[i] = new at::Tensor(std::move(computed[i]));
    }
  });
}

// Forgets the gradients of parameters. The next backward pass then keeps its results without adding them.
void oneactor_forget_gradients(size_t count, at::Tensor* const* parameters) {
  for (size_t i = 0; i < count; i++) {
    parameters[i]->mutable_grad().reset();
  }
}

// Multiplies gradients by `factor [1]` f32 in place, and sets `found [1]` f32 to 1 if a value is not finite.
const char* oneactor_unscale(size_t count, at::Tensor* const* gradients, at::Tensor* found, const at::Tensor* factor) {
  return guarded([&] { at::_amp_foreach_non_finite_check_and_unscale_(listed(gradients, count), *found, *factor); });
}

// Copies without waiting, if `from` is pinned memory and `to` is on a GPU. `from` may not change before the GPU is
// synchronised.
const char* oneactor_send(at::Tensor* to, const at::Tensor* from) {
  return guarded([&] { to->copy_(*from, /*non_blocking=*/true); });
}

// Host memory at a fixed address, which a GPU can read directly.
const char* oneactor_pinned(at::Tensor** bytes, int64_t size) {
  return guarded([&] { *bytes = new at::Tensor(at::empty({size}, at::TensorOptions(at::kByte).pinned_memory(true))); });
}

// Returns freed host memory to the system. glibc keeps every freed block that lies below a block
// still in use; after a network was freed, that can be nearly all of its memory.
void oneactor_trim_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// The largest number of bytes that tensors on this GPU have held at once since the last reset.
const char* oneactor_peak_memory(int8_t gpu, int64_t* bytes) {
  return guarded([&] { *bytes = gpu_allocator()->getDeviceStats(gpu).allocated_bytes[kAggregate].peak; });
}

const char* oneactor_reset_peak_memory(int8_t gpu) {
  return guarded([&] { gpu_allocator()->resetPeakStats(gpu); });
}

}  // extern "C"
