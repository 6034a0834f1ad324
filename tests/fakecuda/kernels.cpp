#include "kernels.h"

#include "accounting.h"
#include "checks.h"
#include "counts.h"
#include "host_side.h"
#include "operators.h"
#include "settings.h"

namespace fakecuda {
namespace {

using torch::jit::Stack;

std::string name_of(const c10::FunctionSchema& schema) {
  return schema.overload_name().empty() ? schema.name() : schema.name() + "." + schema.overload_name();
}

// The device that results are allocated on: that of the first tensor on a GPU, or of the argument
// that names a device.
std::optional<c10::Device> device_for_results(const Stack& given) {
  std::optional<c10::Device> device;
  for (const IValue& value : given) {
    if (value.isDevice() && value.toDevice().is_cuda()) {
      return value.toDevice();
    }
    mapped(value, [&](const Tensor& tensor) {
      if (!device && tensor.defined() && tensor.is_cuda()) {
        device = tensor.device();
      }
      return tensor;
    });
  }
  return device;
}

struct HostCall {
  HostSide side;
  Stack arguments;
  // The dtype of a 16-bit argument; else f32.
  at::ScalarType half = at::kFloat;
};

void prepare(HostCall& call, const Stack& given) {
  const bool account_only = settings().account_only;
  for (const IValue& value : given) {
    if (value.isDevice() && value.toDevice().is_cuda()) {
      call.arguments.push_back(c10::Device(account_only ? c10::kMeta : c10::kCPU));
    } else if (value.isGenerator()) {
      call.arguments.push_back(IValue());
    } else {
      call.arguments.push_back(mapped(value, [&](const Tensor& tensor) {
        if (is_half(tensor)) {
          call.half = tensor.scalar_type();
        }
        if (account_only && tensor.defined() && tensor.dim() > 0 && !tensor.is_cuda()) {
          return at::empty_like(tensor, at::kMeta);
        }
        return call.side.of(tensor);
      }));
    }
  }
}

// Selecting by a mask waits until the number of selected values is known.
bool selects_by_mask(const std::string& name, const Stack& given) {
  bool has_mask = false;
  for (const IValue& value : given) {
    if (takes_indices(name) && value.isOptionalTensorList()) {
      for (const auto& index : value.toOptionalTensorVector()) {
        has_mask |= index && index->defined() &&
            (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte);
      }
    }
  }
  return has_mask;
}

Stack compute(const c10::OperatorHandle& op, const HostCall& prepared, bool is_product) {
  const bool is_half = prepared.half != at::kFloat;
  if (is_half && is_product) {
    return call(op, prepared.arguments, true, prepared.half);
  }
  try {
    return call(op, prepared.arguments, false, prepared.half);
  } catch (const c10::Error& error) {
    // The CPU lacks some kernels for 16 bits that a GPU has.
    if (!is_half || std::strstr(error.what(), "not implemented for") == nullptr) {
      throw;
    }
    return call(op, prepared.arguments, true, prepared.half);
  }
}

// Whether a result is an argument that the operator has written to.
bool is_same(const c10::AliasInfo* result, const c10::AliasInfo* argument) {
  if (result == nullptr || argument == nullptr || !result->isWrite() || !argument->isWrite()) {
    return false;
  }
  return std::any_of(result->beforeSets().begin(), result->beforeSets().end(),
                     [&](const auto& set) { return argument->beforeSets().count(set) != 0; });
}

void push_results(const c10::FunctionSchema& schema, const Stack& given, const Stack& results, HostSide& side,
                  Stack& stack) {
  for (size_t i = 0; i < results.size(); i++) {
    const auto* alias = schema.returns()[i].alias_info();
    std::optional<size_t> same;
    for (size_t j = 0; j < given.size(); j++) {
      if (is_same(alias, schema.arguments()[j].alias_info())) {
        same = j;
      }
    }
    stack.push_back(same ? given[*same]
                         : mapped(results[i], [&](const Tensor& tensor) { return side.to_device(tensor); }));
  }
}

// The kernel of every operator that has no kernel of its own here.
void kernel(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const std::string name = name_of(schema);
  const auto rules = operators().find(name);
  TORCH_CHECK_NOT_IMPLEMENTED(rules != operators().end(), "Could not run '", name,
                              "' with arguments from the 'CUDA' backend.");
  const size_t count = schema.arguments().size();
  const Stack given(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  torch::jit::drop(*stack, count);
  check_arguments(name, rules->second, schema, given);

  const at::AutoDispatchBelowADInplaceOrView below;
  const c10::OptionalDeviceGuard guard(device_for_results(given));
  launched(name);
  if (always_waits(name) || selects_by_mask(name, given)) {
    waited(name);
  }
  HostCall prepared;
  prepare(prepared, given);
  const Stack results = settings().account_only
      ? account(op, name, given, prepared.arguments, prepared.side)
      : compute(op, prepared, is_product(name));
  prepared.side.settle();
  push_results(schema, given, results, prepared.side, *stack);
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&kernel>());
}

// Without these the dispatcher would take the composite kernels.
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  for (const auto& [name, rules] : operators()) {
    // On a GPU too, the gradient of a convolution has only its composite kernel.
    if (rules.is_composite && name != "aten::convolution_backward") {
      m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&kernel>());
    }
  }
}

}  // namespace

Stack call(const c10::OperatorHandle& op, const Stack& arguments, bool in_float, at::ScalarType half) {
  if (!in_float) {
    Stack stack = arguments;
    op.callBoxed(&stack);
    return stack;
  }
  std::vector<std::pair<Tensor, Tensor>> written;
  Stack stack;
  for (size_t i = 0; i < arguments.size(); i++) {
    const auto* alias = op.schema().arguments()[i].alias_info();
    stack.push_back(mapped(arguments[i], [&](const Tensor& tensor) {
      if (!is_half(tensor)) {
        return tensor;
      }
      const Tensor wide = tensor.to(at::kFloat);
      if (alias != nullptr && alias->isWrite()) {
        written.emplace_back(tensor, wide);
      }
      return wide;
    }));
  }
  op.callBoxed(&stack);
  for (auto& [tensor, wide] : written) {
    tensor.resize_(wide.sizes()).copy_(wide);
  }
  for (IValue& result : stack) {
    result = mapped(result, [&](const Tensor& tensor) {
      return tensor.defined() && tensor.scalar_type() == at::kFloat ? tensor.to(half) : tensor;
    });
  }
  return stack;
}

}  // namespace fakecuda
