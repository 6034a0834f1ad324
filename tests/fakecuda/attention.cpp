// Attention: the choice between the kernels of a GPU, and their results. The rules are those of
// aten/src/ATen/native/transformers/cuda/sdp_utils.cpp in libtorch 2.11.

#include "checks.h"
#include "counts.h"
#include "host_side.h"
#include "settings.h"

namespace fakecuda {
namespace {

bool are_alike(const Tensor& q, const Tensor& other) {
  return q.scalar_type() == other.scalar_type() && q.size(0) == other.size(0) && q.size(1) == other.size(1);
}

// What every kernel but the plain operations asks for: dense [B, H, S, D], all of one kind.
bool suits_fused(const Tensor& q, const Tensor& k, const Tensor& v, double dropout, bool enable_gqa) {
  const auto has_layout = [](const Tensor& t) { return t.dim() == 4 && t.stride(-1) == 1 && t.size(-2) > 0; };
  return has_layout(q) && has_layout(k) && has_layout(v) && are_alike(q, k) && are_alike(q, v) && dropout == 0.0 &&
      !enable_gqa;
}

int64_t choose_attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask,
                         double dropout, bool is_causal, std::optional<double>, bool enable_gqa) {
  const auto& context = at::globalContext();
  const bool suits = suits_fused(q, k, v, dropout, enable_gqa);
  const bool half = is_half(q), has_mask = mask && mask->defined();
  const int64_t width = q.size(-1), v_width = v.size(-1), unit = half ? 8 : 4;
  const bool flash = context.userEnabledFlashSDP() && suits && half && !has_mask && width <= 256 &&
      width == v_width && !(is_causal && q.size(-2) != k.size(-2));
  const bool efficient = context.userEnabledMemEfficientSDP() && suits && (half || q.scalar_type() == at::kFloat) &&
      width % unit == 0 && v_width % unit == 0;
  const bool cudnn =
      context.userEnabledCuDNNSDP() && suits && half && width % 8 == 0 && width <= 128 && v_width <= 128;
  const bool prefers_cudnn = settings().capability >= 90;
  using Backend = at::SDPBackend;
  for (const auto& [is_possible, backend] : {std::pair(cudnn && prefers_cudnn, Backend::cudnn_attention),
                                             std::pair(flash, Backend::flash_attention),
                                             std::pair(efficient, Backend::efficient_attention),
                                             std::pair(context.userEnabledMathSDP(), Backend::math),
                                             std::pair(cudnn, Backend::cudnn_attention)}) {
    if (is_possible) {
      return static_cast<int64_t>(backend);
    }
  }
  TORCH_CHECK(false, "No available kernel. Aborting execution.");
}

int64_t fused_choice(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask,
                     double dropout, bool is_causal, std::optional<double> scale, bool enable_gqa) {
  return choose_attention(q, k, v, mask, dropout, is_causal, scale, enable_gqa);
}

std::optional<Tensor> bias_of(HostSide& side, const std::optional<Tensor>& mask) {
  return mask && mask->defined() ? std::optional<Tensor>(side.in_float(*mask)) : std::nullopt;
}

// Output [B, H, S, D] and the logarithms of the softmax's sums [B, H, S].
std::pair<Tensor, Tensor> attend(const char* name, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const std::optional<Tensor>& mask, bool is_causal, std::optional<double> scale) {
  check_alike(name, {q, k, v, mask ? *mask : Tensor()});
  const c10::DeviceGuard guard(q.device());
  launched(name);
  if (settings().account_only) {
    const Tensor out = at::empty({q.size(0), q.size(2), q.size(1), v.size(3)}, q.options()).transpose(1, 2);
    return {out, at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat))};
  }
  HostSide side;
  // The CPU's kernel wants values as wide as keys: narrower ones are followed by zeros.
  TORCH_CHECK(v.size(3) <= k.size(3), "fakecuda: values that are wider than keys are not simulated");
  const Tensor value = at::constant_pad_nd(side.in_float(v), {0, k.size(3) - v.size(3)});
  auto [out, sums] = at::_scaled_dot_product_flash_attention_for_cpu(
      side.in_float(q), side.in_float(k), value, 0.0, is_causal, bias_of(side, mask), scale);
  return {HostSide::copied(out.narrow(3, 0, v.size(3)).to(q.scalar_type())), HostSide::copied(sums.contiguous())};
}

std::tuple<Tensor, Tensor, Tensor> attend_backward(const char* name, const Tensor& gradient, const Tensor& q,
                                                   const Tensor& k, const Tensor& v, const Tensor& out,
                                                   const Tensor& sums, const std::optional<Tensor>& mask,
                                                   bool is_causal, std::optional<double> scale) {
  check_alike(name, {gradient, q, k, v, out});
  const c10::DeviceGuard guard(q.device());
  launched(name);
  if (settings().account_only) {
    const auto like = [](const Tensor& t) {
      return at::empty({t.size(0), t.size(2), t.size(1), t.size(3)}, t.options()).transpose(1, 2);
    };
    return {like(q), like(k), like(v)};
  }
  HostSide side;
  auto [of_q, of_k, of_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      side.in_float(gradient), side.in_float(q), side.in_float(k), side.in_float(v), side.in_float(out),
      side.of(sums), 0.0, is_causal, bias_of(side, mask), scale);
  const auto to_device = [&](const Tensor& host) { return HostSide::copied(host.to(q.scalar_type())); };
  return {to_device(of_q), to_device(of_k), to_device(of_v)};
}

// The state of a generator that nothing is drawn from.
Tensor state(const Tensor& q) {
  return at::empty({2}, q.options().dtype(at::kLong));
}

using Flash = std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

Flash flash(const Tensor& q, const Tensor& k, const Tensor& v, double dropout, bool is_causal, bool,
            std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  TORCH_CHECK(is_half(q), "FlashAttention only support fp16 and bf16 data type");
  TORCH_CHECK(dropout == 0.0, "fakecuda: dropout in attention is not simulated");
  auto [out, sums] = attend("flash_attention", q, k, v, std::nullopt, is_causal, scale);
  return {out, sums, Tensor(), Tensor(), q.size(2), k.size(2), state(q), state(q), at::empty({0}, q.options())};
}

std::tuple<Tensor, Tensor, Tensor> flash_backward(const Tensor& gradient, const Tensor& q, const Tensor& k,
                                                  const Tensor& v, const Tensor& out, const Tensor& sums,
                                                  const Tensor&, const Tensor&, c10::SymInt, c10::SymInt, double,
                                                  bool is_causal, const Tensor&, const Tensor&,
                                                  std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return attend_backward("flash_attention_backward", gradient, q, k, v, out, sums, std::nullopt, is_causal, scale);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient(const Tensor& q, const Tensor& k, const Tensor& v,
                                                     const std::optional<Tensor>& bias, bool with_sums, double dropout,
                                                     bool is_causal, std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  TORCH_CHECK(dropout == 0.0, "fakecuda: dropout in attention is not simulated");
  auto [out, sums] = attend("efficient_attention", q, k, v, bias, is_causal, scale);
  if (!with_sums) {
    sums = at::empty({q.size(0), q.size(1), 0}, sums.options());
  }
  return {out, sums, state(q), state(q)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> efficient_backward(
    const Tensor& gradient, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias, const Tensor& out,
    const Tensor& sums, const Tensor&, const Tensor&, double, std::array<bool, 4> wanted, bool is_causal,
    std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  TORCH_CHECK(!(wanted[3] && bias.defined()), "fakecuda: no gradient of an attention mask");
  auto [of_q, of_k, of_v] =
      attend_backward("efficient_attention_backward", gradient, q, k, v, out, sums, bias, is_causal, scale);
  return {of_q, of_k, of_v, Tensor()};
}

Flash cudnn_attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& bias, bool,
                      double dropout, bool is_causal, bool, std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  TORCH_CHECK(dropout == 0.0, "fakecuda: dropout in attention is not simulated");
  auto [out, sums] = attend("cudnn_attention", q, k, v, bias, is_causal, scale);
  return {out, sums, Tensor(), Tensor(), q.size(2), k.size(2), state(q), state(q), at::empty({0}, q.options())};
}

std::tuple<Tensor, Tensor, Tensor> cudnn_attention_backward(
    const Tensor& gradient, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& sums,
    const Tensor&, const Tensor&, const Tensor& bias, const Tensor&, const Tensor&, c10::SymInt, c10::SymInt, double,
    bool is_causal, std::optional<double> scale) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return attend_backward("cudnn_attention_backward", gradient, q, k, v, out, sums, bias, is_causal, scale);
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("_fused_sdp_choice", TORCH_FN(fused_choice));
  m.impl("_scaled_dot_product_flash_attention", TORCH_FN(flash));
  m.impl("_scaled_dot_product_flash_attention_backward", TORCH_FN(flash_backward));
  m.impl("_scaled_dot_product_efficient_attention", TORCH_FN(efficient));
  m.impl("_scaled_dot_product_efficient_attention_backward", TORCH_FN(efficient_backward));
  m.impl("_scaled_dot_product_cudnn_attention", TORCH_FN(cudnn_attention));
  m.impl("_scaled_dot_product_cudnn_attention_backward", TORCH_FN(cudnn_attention_backward));
}

}  // namespace
}  // namespace fakecuda

namespace at::native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &fakecuda::choose_attention)
}  // namespace at::native
