// Convolutions, which cuDNN computes on a GPU. Sums are in f32, as there.

#include "checks.h"
#include "counts.h"
#include "host_side.h"
#include "settings.h"
#include "tensors.h"

namespace fakecuda {
namespace {

Tensor convolution(const Tensor& input, const Tensor& weight, at::IntArrayRef padding, at::IntArrayRef stride,
                   at::IntArrayRef dilation, int64_t groups, bool, bool, bool) {
  const at::AutoDispatchBelowADInplaceOrView below;
  check_alike("cudnn_convolution", {input, weight});
  const c10::DeviceGuard guard(input.device());
  launched("aten::cudnn_convolution");
  if (settings().account_only) {
    const auto size = at::native::conv_output_size(input.sizes(), weight.sizes(), padding, stride, dilation);
    const auto format = at::native::cudnn_conv_suggest_memory_format(input, weight);
    return empty(size, input.scalar_type(), std::nullopt, std::nullopt, std::nullopt, format);
  }
  HostSide side;
  const std::vector<int64_t> none(padding.size(), 0);
  const Tensor host = at::convolution(side.in_float(input), side.in_float(weight), {}, stride, padding, dilation,
                                      false, none, groups);
  return HostSide::copied(host.to(input.scalar_type()));
}

// `wanted`: the gradients of input and weight.
std::tuple<Tensor, Tensor> convolution_backward(const Tensor& input, const Tensor& gradient, const Tensor& weight,
                                                at::IntArrayRef padding, at::IntArrayRef stride,
                                                at::IntArrayRef dilation, int64_t groups, bool, bool, bool,
                                                std::array<bool, 2> wanted) {
  const at::AutoDispatchBelowADInplaceOrView below;
  check_alike("cudnn_convolution_backward", {input, gradient, weight});
  const c10::DeviceGuard guard(input.device());
  if (wanted[0]) {
    launched("cudnn_convolution_backward_input");
  }
  if (wanted[1]) {
    launched("cudnn_convolution_backward_weight");
  }
  if (settings().account_only) {
    const auto like = [](bool is_wanted, const Tensor& tensor) {
      return is_wanted ? at::empty_like(tensor, at::MemoryFormat::Contiguous) : Tensor();
    };
    return {like(wanted[0], input), like(wanted[1], weight)};
  }
  HostSide side;
  const std::vector<int64_t> none(padding.size(), 0);
  auto [of_input, of_weight, of_bias] =
      at::convolution_backward(side.in_float(gradient), side.in_float(input), side.in_float(weight), c10::nullopt,
                               stride, padding, dilation, false, none, groups, {wanted[0], wanted[1], false});
  const auto to_device = [&](const Tensor& host) {
    return host.defined() ? HostSide::copied(host.to(input.scalar_type())) : host;
  };
  return {to_device(of_input), to_device(of_weight)};
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("cudnn_convolution", TORCH_FN(convolution));
}

}  // namespace
}  // namespace fakecuda

namespace at::native {
REGISTER_CUDA_DISPATCH(cudnn_convolution_backward_stub, &fakecuda::convolution_backward)
}  // namespace at::native
