#include "accounting.h"

#include "kernels.h"

namespace fakecuda {
namespace {

using torch::jit::Stack;

Tensor like(const IValue& value, bool is_wanted = true) {
  const bool exists = is_wanted && value.isTensor() && value.toTensor().defined();
  return exists ? at::empty_like(value.toTensor(), at::MemoryFormat::Contiguous) : Tensor();
}

// The results of norms, whose sizes libtorch cannot derive without computing. No value if `name` is
// another operator.
std::optional<Stack> of_norm(const std::string& name, const Stack& given) {
  const auto wanted = [&] { return given.back().toBoolList().vec(); };
  if (name == "aten::native_group_norm") {
    const Tensor& xs = given[0].toTensor();
    const std::vector<int64_t> groups{given[3].toInt(), given[6].toInt()};
    return Stack{like(given[0]), at::empty(groups, xs.options()), at::empty(groups, xs.options())};
  }
  if (name == "aten::native_group_norm_backward") {
    return Stack{like(given[1], wanted()[0]), like(given[4], wanted()[1]), like(given[4], wanted()[2])};
  }
  if (name == "aten::native_layer_norm") {
    const Tensor& xs = given[0].toTensor();
    const auto normed = static_cast<int64_t>(given[1].toIntVector().size());
    std::vector<int64_t> rows = xs.sizes().vec();
    std::fill(rows.end() - normed, rows.end(), 1);
    const auto options = xs.options().dtype(at::kFloat);
    return Stack{like(given[0]), at::empty(rows, options), at::empty(rows, options)};
  }
  if (name == "aten::native_layer_norm_backward") {
    return Stack{like(given[1], wanted()[0]), like(given[5], wanted()[1]), like(given[6], wanted()[2])};
  }
  return std::nullopt;
}

// Tensors of zeros on the CPU in place of those on the device, and the pairs that the operator
// writes to. Unless `is_dense`, all elements of a tensor are one number in memory.
struct Zeros {
  Stack arguments;
  std::vector<std::pair<Tensor, Tensor>> written;
};

Zeros zeros(const c10::FunctionSchema& schema, const Stack& given, bool is_dense) {
  Zeros made;
  for (size_t i = 0; i < given.size(); i++) {
    const auto* alias = schema.arguments()[i].alias_info();
    const bool is_written = alias != nullptr && alias->isWrite();
    if (given[i].isDevice()) {
      made.arguments.push_back(c10::Device(c10::kCPU));
      continue;
    }
    made.arguments.push_back(mapped(given[i], [&](const Tensor& tensor) {
      if (!tensor.defined() || !tensor.is_cuda()) {
        return tensor;
      }
      const at::TensorOptions options(tensor.scalar_type());
      if (is_written || is_dense) {
        const Tensor zeros = at::zeros(tensor.sizes(), options);
        if (is_written) {
          made.written.emplace_back(tensor, zeros);
        }
        return zeros;
      }
      return at::zeros({}, options).expand(tensor.sizes());
    }));
  }
  return made;
}

// Some operators have no kernel without values: they compute with zeros.
Stack of_zeros(const c10::OperatorHandle& op, const Stack& given) {
  Zeros made = zeros(op.schema(), given, false);
  Stack results;
  try {
    results = call(op, made.arguments, false, at::kFloat);
  } catch (const c10::Error&) {
    made = zeros(op.schema(), given, true);
    results = call(op, made.arguments, false, at::kFloat);
  }
  for (const auto& [device, host] : made.written) {
    device.resize_(host.sizes());
  }
  return results;
}

}  // namespace

Stack account(const c10::OperatorHandle& op, const std::string& name, const Stack& given, const Stack& without_values,
              HostSide& side) {
  if (const auto results = of_norm(name, given)) {
    return *results;
  }
  try {
    return call(op, without_values, false, at::kFloat);
  } catch (const c10::NotImplementedError&) {
    side = HostSide();
    return of_zeros(op, given);
  }
}

}  // namespace fakecuda
