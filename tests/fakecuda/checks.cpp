#include "checks.h"

#include "counts.h"
#include "host_side.h"

namespace fakecuda {
namespace {

// The device of the first argument on a GPU; every other argument has to be there too.
std::optional<c10::Device> common_device(const torch::jit::Stack& arguments) {
  std::optional<c10::Device> device;
  for (const IValue& value : arguments) {
    mapped(value, [&](const Tensor& tensor) {
      if (!device && tensor.defined() && tensor.is_cuda()) {
        device = tensor.device();
      }
      return tensor;
    });
  }
  return device;
}

}  // namespace

void check_arguments(const std::string& name, const Operator& rules, const c10::FunctionSchema& schema,
                     const torch::jit::Stack& arguments) {
  const auto device = common_device(arguments);
  std::optional<at::ScalarType> dtype;
  for (size_t i = 0; i < arguments.size(); i++) {
    const bool is_indices = takes_indices(name) && arguments[i].isOptionalTensorList();
    mapped(arguments[i], [&](const Tensor& tensor) {
      if (!tensor.defined()) {
        return tensor;
      }
      if (is_product(name)) {
        const auto type = tensor.scalar_type();
        TORCH_CHECK(at::isFloatingType(type) || at::isComplexType(type), "\"", name, "_cuda\" not implemented for '",
                    type, "'");
        TORCH_CHECK(!dtype || *dtype == type, "expected m1 and m2 to have the same dtype, but got: ", *dtype,
                    " != ", type);
        dtype = type;
      }
      if (!device || tensor.device() == *device) {
        return tensor;
      }
      if (is_indices && tensor.is_cpu()) {
        sent(bytes_of(tensor), false);
        waited("index on the host");
        return tensor;
      }
      TORCH_CHECK(rules.checks_devices && tensor.is_cpu() && tensor.dim() == 0,
                  "Expected all tensors to be on the same device, but got ", schema.arguments()[i].name(), " is on ",
                  tensor.device(), ", different from other tensors on ", *device,
                  " (when checking argument in method wrapper_CUDA_", name, ")");
      return tensor;
    });
  }
}

void check_alike(const char* name, std::initializer_list<Tensor> tensors) {
  const Tensor& first = *tensors.begin();
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) {
      continue;
    }
    TORCH_CHECK(tensor.is_cuda() && tensor.device() == first.device(),
                "Expected all tensors to be on the same device (", name, ")");
    TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), name, ": expected one dtype, found ",
                first.scalar_type(), " and ", tensor.scalar_type());
  }
}

}  // namespace fakecuda
