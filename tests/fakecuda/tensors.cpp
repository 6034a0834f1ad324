// Kernels that make, resize, copy and read tensors, and views of them.

#include "tensors.h"

#include "counts.h"
#include "device_memory.h"
#include "host_side.h"
#include "pinned_memory.h"
#include "settings.h"

namespace fakecuda {

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
             std::optional<at::Device> device, std::optional<bool> is_pinned,
             std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!is_pinned.value_or(false), "Only dense CPU tensors can be pinned");
  const c10::OptionalDeviceGuard guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::CUDA);
  return at::detail::empty_generic(size, &device_memory(), keys, c10::dtype_or_default(type), format);
}

namespace {

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type,
                     std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return empty_on_device(size, stride, c10::dtype_or_default(type));
}

const Tensor& resize_(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  const c10::DeviceGuard guard(self.device());
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  const size_t needed = (self.storage_offset() + self.numel()) * self.element_size();
  auto* storage = self.storage().unsafeGetStorageImpl();
  if (storage->nbytes() < needed) {
    c10::DataPtr data = device_memory().allocate(needed);
    if (storage->nbytes() > 0) {
      device_memory().copy_data(data.get(), storage->data(), storage->nbytes());
    }
    storage->set_data_ptr_noswap(std::move(data));
    storage->set_nbytes(needed);
  }
  return self;
}

// A copy between host and device makes the host wait, unless it is asked not to (`non_blocking`) and
// its own memory is pinned.
void count_copy(const Tensor& to, const Tensor& from, bool non_blocking) {
  if (to.is_cuda() && from.is_cuda()) {
    launched("copy on the device");
    return;
  }
  const bool is_upload = to.is_cuda();
  const bool pinned = is_pinned((is_upload ? from : to).data_ptr());
  if (is_upload) {
    sent(bytes_of(from), pinned);
  } else {
    received(bytes_of(to));
  }
  if (!non_blocking || !pinned) {
    waited(!is_upload   ? "copy to the host"
               : pinned ? "copy to the device, pinned"
                        : "copy to the device, pageable");
  }
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  const at::AutoDispatchBelowADInplaceOrView below;
  if (self.numel() == 0 && source.numel() == 0) {
    return self;
  }
  count_copy(self, source, non_blocking);
  if (!settings().account_only) {
    HostSide side;
    side.of(self).copy_(side.of(source));
  } else if (!self.is_cuda()) {
    self.zero_();
  }
  return self;
}

at::Scalar local_scalar(const Tensor& self) {
  received(bytes_of(self));
  waited("item");
  if (settings().account_only) {
    // There are no values: every question is answered by yes, every number is 1.
    const auto type = self.scalar_type();
    return type == at::kBool ? at::Scalar(true) : at::isFloatingType(type) ? at::Scalar(1.0) : at::Scalar(1);
  }
  HostSide side;
  return at::_local_scalar_dense(side.of(self));
}

void record_stream(Tensor&, c10::Stream) {}

Tensor view(const Tensor& self, at::IntArrayRef size) {
  return at::native::view(self, size);
}

Tensor as_strided(const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

Tensor reshape_alias(const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride) {
  return at::native::_reshape_alias(self, size, stride);
}

Tensor unfold(const Tensor& self, int64_t dimension, int64_t size, int64_t step) {
  return at::native::unfold(self, dimension, size, step);
}

Tensor view_as_real(const Tensor& self) {
  return at::native::view_as_real(self);
}

Tensor view_as_complex(const Tensor& self) {
  return at::native::view_as_complex(self);
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("copy_", TORCH_FN(copy_));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  m.impl("record_stream", TORCH_FN(record_stream));
  m.impl("view", TORCH_FN(view));
  m.impl("as_strided", TORCH_FN(as_strided));
  m.impl("_reshape_alias", TORCH_FN(reshape_alias));
  m.impl("unfold", TORCH_FN(unfold));
  m.impl("view_as_real", TORCH_FN(view_as_real));
  m.impl("view_as_complex", TORCH_FN(view_as_complex));
}

}  // namespace
}  // namespace fakecuda
