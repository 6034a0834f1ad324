// The host's side of device tensors: CPU tensors over the same bytes, which the CPU's kernels can
// compute with. Where only memory is counted, they have no bytes (libtorch's "meta" device).

#pragma once

#include "libtorch.h"

namespace fakecuda {

// A new tensor on the current device.
Tensor empty_on_device(at::IntArrayRef size, at::IntArrayRef stride, at::ScalarType type);

int64_t bytes_of(const Tensor& tensor);

// Whether the values are fp16 or bf16.
bool is_half(const Tensor& tensor);

// The tensors of one call.
class HostSide {
 public:
  // The host's side of a device tensor. Tensors that share memory share it here too. Other tensors
  // are returned as they are.
  Tensor of(const Tensor& tensor);

  // The same in f32 if the values are fp16 or bf16: a GPU sums their products in f32.
  Tensor in_float(const Tensor& tensor);

  // A result on the device: a view if it is a view of a tensor of this call, else a new tensor.
  Tensor to_device(const Tensor& host);

  // A new tensor on the current device with this content.
  static Tensor copied(const Tensor& host);

  // A kernel may have enlarged a tensor on the host's side or moved it to other memory; the device
  // tensors follow.
  void settle();

 private:
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages_;
  // Device tensors by the storage of their host's side.
  std::unordered_map<c10::StorageImpl*, Tensor> origins_;
  std::vector<std::pair<Tensor, Tensor>> pairs_;
};

// `change` applied to each tensor in an argument or result of an operator.
template <typename Change>
IValue mapped(const IValue& value, Change change) {
  if (value.isTensor()) {
    return change(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(change(tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor ? std::optional<Tensor>(change(*tensor)) : std::nullopt);
    }
    return list;
  }
  return value;
}

}  // namespace fakecuda
