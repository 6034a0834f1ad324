// Convolutions, which cuDNN computes on a GPU. Sums are in f32, as there.

#include "checks.h"
#include "counts.h"
#include "host_side.h"
#include "settings.h"
#include "tensors.h"

namespace fakecuda {
namespace {

struct Geometry {
  at::IntArrayRef padding;
  // Only of a transposed convolution.
  std::vector<int64_t> output_padding;
  at::IntArrayRef stride, dilation;
  int64_t groups;
  bool is_transposed;
};

std::vector<int64_t> none(at::IntArrayRef padding) {
  return std::vector<int64_t>(padding.size(), 0);
}

Tensor convolve(const char* name, const Tensor& input, const Tensor& weight, const Geometry& g) {
  const at::AutoDispatchBelowADInplaceOrView below;
  check_alike(name, {input, weight});
  const c10::DeviceGuard guard(input.device());
  launched(name);
  if (settings().account_only) {
    using namespace at::native;
    const auto size = g.is_transposed
        ? conv_input_size(input.sizes(), weight.sizes(), g.padding, g.output_padding, g.stride, g.dilation, g.groups)
        : conv_output_size(input.sizes(), weight.sizes(), g.padding, g.stride, g.dilation);
    const auto format = cudnn_conv_suggest_memory_format(input, weight);
    return empty(size, input.scalar_type(), std::nullopt, std::nullopt, std::nullopt, format);
  }
  HostSide side;
  const Tensor host = at::convolution(side.in_float(input), side.in_float(weight), {}, g.stride, g.padding, g.dilation,
                                      g.is_transposed, g.output_padding, g.groups);
  return HostSide::copied(host.to(input.scalar_type()));
}

// The gradients of input and weight, as far as they are `wanted`.
std::tuple<Tensor, Tensor> gradients(const std::string& name, const Tensor& input, const Tensor& gradient,
                                     const Tensor& weight, const Geometry& g, std::array<bool, 2> wanted) {
  const at::AutoDispatchBelowADInplaceOrView below;
  check_alike(name.c_str(), {input, gradient, weight});
  const c10::DeviceGuard guard(input.device());
  if (wanted[0]) {
    launched(name + "_input");
  }
  if (wanted[1]) {
    launched(name + "_weight");
  }
  if (settings().account_only) {
    const auto like = [](bool is_wanted, const Tensor& tensor) {
      return is_wanted ? at::empty_like(tensor, at::MemoryFormat::Contiguous) : Tensor();
    };
    return {like(wanted[0], input), like(wanted[1], weight)};
  }
  HostSide side;
  auto [of_input, of_weight, of_bias] = at::convolution_backward(
      side.in_float(gradient), side.in_float(input), side.in_float(weight), c10::nullopt, g.stride, g.padding,
      g.dilation, g.is_transposed, g.output_padding, g.groups, {wanted[0], wanted[1], false});
  const auto to_device = [&](const Tensor& host) {
    return host.defined() ? HostSide::copied(host.to(input.scalar_type())) : host;
  };
  return {to_device(of_input), to_device(of_weight)};
}

Tensor convolution(const Tensor& input, const Tensor& weight, at::IntArrayRef padding, at::IntArrayRef stride,
                   at::IntArrayRef dilation, int64_t groups, bool, bool, bool) {
  const Geometry geometry{padding, none(padding), stride, dilation, groups, false};
  return convolve("cudnn_convolution", input, weight, geometry);
}

std::tuple<Tensor, Tensor> convolution_backward(const Tensor& input, const Tensor& gradient, const Tensor& weight,
                                                at::IntArrayRef padding, at::IntArrayRef stride,
                                                at::IntArrayRef dilation, int64_t groups, bool, bool, bool,
                                                std::array<bool, 2> wanted) {
  const Geometry geometry{padding, none(padding), stride, dilation, groups, false};
  return gradients("cudnn_convolution_backward", input, gradient, weight, geometry, wanted);
}

Tensor transposed(const Tensor& input, const Tensor& weight, at::IntArrayRef padding, at::IntArrayRef output_padding,
                  at::IntArrayRef stride, at::IntArrayRef dilation, int64_t groups, bool, bool, bool) {
  const Geometry geometry{padding, output_padding.vec(), stride, dilation, groups, true};
  return convolve("cudnn_convolution_transpose", input, weight, geometry);
}

std::tuple<Tensor, Tensor> transposed_backward(const Tensor& input, const Tensor& gradient, const Tensor& weight,
                                               at::IntArrayRef padding, at::IntArrayRef output_padding,
                                               at::IntArrayRef stride, at::IntArrayRef dilation, int64_t groups, bool,
                                               bool, bool, std::array<bool, 2> wanted) {
  const Geometry geometry{padding, output_padding.vec(), stride, dilation, groups, true};
  return gradients("cudnn_convolution_transpose_backward", input, gradient, weight, geometry, wanted);
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("cudnn_convolution", TORCH_FN(convolution));
  m.impl("cudnn_convolution_transpose", TORCH_FN(transposed));
}

}  // namespace
}  // namespace fakecuda

namespace at::native {
REGISTER_CUDA_DISPATCH(cudnn_convolution_backward_stub, &fakecuda::convolution_backward)
REGISTER_CUDA_DISPATCH(cudnn_convolution_transpose_backward_stub, &fakecuda::transposed_backward)
}  // namespace at::native
