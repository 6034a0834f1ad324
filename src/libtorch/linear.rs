//! Products with frozen weights on a CPU, computed by oneDNN where this libtorch has it.

use tch::{Device, Kind, Tensor};

/// `y = x Wᵀ + b`, `[.., D_in]` to `[.., D_out]`, with `weight [D_out, D_in]` and `bias [D_out]`.
///
/// In f32 on a CPU this is oneDNN's product, which libtorch uses for compiled graphs. libtorch's
/// ordinary product is MKL's, which uses half of AVX-512 on processors that are not Intel's: 107
/// against 240 GFLOP/s on one core of a Zen 5. The two add in a different order. Other devices,
/// other number formats, weights that are being learnt and builds without the shim use the ordinary
/// product.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let has_product =
        |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.kind() == Kind::Float;
    let is_frozen = |tensor: &Tensor| has_product(tensor) && !tensor.requires_grad();
    let is_eligible = has_product(xs) && is_frozen(weight) && bias.is_none_or(is_frozen);
    is_eligible
        .then(|| product(xs, weight, bias))
        .flatten()
        .unwrap_or_else(|| xs.linear(weight, bias))
}

/// oneDNN's product; `None` if this libtorch has none or refuses the arguments. The ordinary
/// product then reports what is wrong with them.
#[cfg(libtorch_shim)]
#[allow(
    unsafe_code,
    reason = "a C function, given pointers to tensors that live during the call; it makes the tensor that it returns"
)]
fn product(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Option<Tensor> {
    use std::ffi::c_char;
    use std::ptr;

    use torch_sys::C_tensor;

    unsafe extern "C" {
        fn oneactor_linear(
            ys: *mut *mut C_tensor,
            xs: *const C_tensor,
            weight: *const C_tensor,
            bias: *const C_tensor,
        ) -> *const c_char;
    }
    let mut ys = ptr::null_mut();
    let bias = bias.map_or(ptr::null(), Tensor::as_ptr);
    let refusal = unsafe { oneactor_linear(&raw mut ys, xs.as_ptr(), weight.as_ptr(), bias) };
    (refusal.is_null() && !ys.is_null()).then(|| unsafe { Tensor::from_ptr(ys) })
}

#[cfg(not(libtorch_shim))]
fn product(_: &Tensor, _: &Tensor, _: Option<&Tensor>) -> Option<Tensor> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::seeded;

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    }

    /// Norm of the difference divided by the norm of the f64 result.
    fn error(found: &Tensor, exact: &Tensor) -> f64 {
        let found = found.to_kind(Kind::Double);
        ((found - exact).norm() / exact.norm()).double_value(&[])
    }

    /// f32 keeps 24 bits: the error of a sum of up to 640 products is about 1e-7 of the norm.
    const BAR: f64 = 1e-6;

    #[test]
    #[cfg(libtorch_shim)]
    fn this_build_has_onednn_s_product() {
        assert!(product(&randn(&[4, 8]), &randn(&[3, 8]), None).is_some());
    }

    #[test]
    fn value_and_gradient_are_those_of_f64() {
        let _drawing = seeded(0);
        for (shape, d_out) in [
            (&[3, 17, 64][..], 96),
            (&[2, 640], 320),
            (&[1, 1, 1, 5], 1),
            (&[8], 7),
        ] {
            let d_in = *shape.last().expect("it has axes");
            let (weight, bias, xs) = (randn(&[d_out, d_in]), randn(&[d_out]), randn(shape));
            for bias in [Some(&bias), None] {
                let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
                let exact = double(&xs).linear(&double(&weight), bias.map(double).as_ref());
                assert!(
                    error(&linear(&xs, &weight, bias), &exact) < BAR,
                    "{shape:?}"
                );

                let leaf = xs.copy().set_requires_grad(true);
                let ys = linear(&leaf, &weight, bias);
                assert!(error(&ys, &exact) < BAR, "{shape:?} with a graph");
                let towards = randn(&ys.size());
                (ys * &towards).sum(Kind::Float).backward();
                let exact = double(&towards).matmul(&double(&weight));
                assert!(error(&leaf.grad(), &exact) < BAR, "{shape:?}: gradient");
            }
        }
    }

    #[test]
    fn a_view_of_other_strides_is_read_by_its_strides() {
        let _drawing = seeded(0);
        let (weight, xs) = (randn(&[6, 10]), randn(&[10, 4]));
        let (turned, halves) = (xs.transpose(0, 1), randn(&[4, 20]));
        for view in [turned, halves.narrow(1, 10, 10)] {
            let exact = view
                .to_kind(Kind::Double)
                .matmul(&weight.to_kind(Kind::Double).transpose(0, 1));
            assert!(error(&linear(&view, &weight, None), &exact) < BAR);
        }
    }

    #[test]
    fn the_output_may_be_added_to_in_place() {
        let _drawing = seeded(0);
        let (weight, xs) = (randn(&[4, 4]), randn(&[2, 4]).set_requires_grad(true));
        let mut ys = linear(&xs, &weight, None);
        ys += 1.0;
        ys.sum(Kind::Float).backward();
        let exact = weight
            .to_kind(Kind::Double)
            .sum_dim_intlist(0i64, false, Kind::Double);
        assert!(error(&xs.grad().get(0), &exact) < BAR);
    }

    #[test]
    fn a_weight_that_is_learnt_gets_its_gradient() {
        let _drawing = seeded(0);
        let (xs, weight) = (randn(&[2, 4]), randn(&[3, 4]).set_requires_grad(true));
        linear(&xs, &weight, None).sum(Kind::Float).backward();
        assert!(weight.grad().defined());
    }

    #[test]
    fn a_wrong_shape_is_reported_by_libtorch() {
        let _drawing = seeded(0);
        let failed = std::panic::catch_unwind(|| linear(&randn(&[2, 5]), &randn(&[3, 4]), None));
        assert!(failed.is_err());
    }
}
