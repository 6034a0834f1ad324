#include "host_side.h"

#include "device_memory.h"
#include "settings.h"

namespace fakecuda {
namespace {

// A tensor over `storage` with the shape of another one.
Tensor over(const c10::Storage& storage, c10::DispatchKey key, const Tensor& like) {
  const c10::DispatchKeySet keys(key);
  Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), keys, like.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return tensor;
}

// Numbers that were written in an expression decide less about the dtype of its result.
void keep_wrapped(const Tensor& from, const Tensor& to) {
  if (from.unsafeGetTensorImpl()->is_wrapped_number()) {
    to.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
}

}  // namespace

Tensor empty_on_device(at::IntArrayRef size, at::IntArrayRef stride, at::ScalarType type) {
  const c10::DispatchKeySet keys(c10::DispatchKey::CUDA);
  return at::detail::empty_strided_generic(size, stride, &device_memory(), keys, type);
}

int64_t bytes_of(const Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

bool is_half(const Tensor& tensor) {
  return tensor.defined() && (tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16);
}

Tensor HostSide::of(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) {
    return tensor;
  }
  TORCH_CHECK(!tensor.is_conj() && !tensor.is_neg(), "fakecuda: lazy conjugation is not simulated");
  Tensor host;
  if (settings().account_only) {
    host = at::detail::empty_strided_meta(tensor.sizes(), tensor.strides(), tensor.scalar_type());
  } else {
    const c10::Storage& storage = tensor.storage();
    auto found = storages_.find(storage.unsafeGetStorageImpl());
    if (found == storages_.end()) {
      c10::DataPtr data(host_bytes(storage.data()), c10::Device(c10::DeviceType::CPU));
      auto made = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), storage.nbytes(),
                                                        std::move(data), c10::GetAllocator(c10::kCPU), true);
      found = storages_.emplace(storage.unsafeGetStorageImpl(), c10::Storage(std::move(made))).first;
      origins_.emplace(found->second.unsafeGetStorageImpl(), tensor);
    }
    host = over(found->second, c10::DispatchKey::CPU, tensor);
  }
  keep_wrapped(tensor, host);
  pairs_.emplace_back(tensor, host);
  return host;
}

Tensor HostSide::in_float(const Tensor& tensor) {
  const Tensor host = of(tensor);
  return is_half(host) ? host.to(at::kFloat) : host;
}

Tensor HostSide::to_device(const Tensor& host) {
  if (!host.defined() || host.is_cuda()) {
    return host;
  }
  if (!settings().account_only && host.has_storage()) {
    const auto found = origins_.find(host.storage().unsafeGetStorageImpl());
    if (found != origins_.end()) {
      return over(found->second.storage(), c10::DispatchKey::CUDA, host);
    }
  }
  return copied(host);
}

Tensor HostSide::copied(const Tensor& host) {
  const bool is_dense = host.is_non_overlapping_and_dense();
  const Tensor laid_out = is_dense ? host : at::empty_like(host, at::kMeta);
  Tensor made = empty_on_device(host.sizes(), laid_out.strides(), host.scalar_type());
  if (!settings().account_only && host.numel() > 0) {
    HostSide side;
    side.of(made).copy_(host);
  }
  return made;
}

void HostSide::settle() {
  for (auto& [device, host] : pairs_) {
    if (settings().account_only) {
      if (device.sizes() != host.sizes()) {
        device.resize_(host.sizes());
      }
      continue;
    }
    const bool has_moved = host.storage().data() != host_bytes(device.storage().data());
    if (!has_moved && host.sizes() == device.sizes() && host.strides() == device.strides()) {
      continue;
    }
    device.resize_(host.sizes());
    if (host.numel() > 0) {
      HostSide side;
      side.of(device).copy_(host);
    }
  }
}

}  // namespace fakecuda
