//! Arithmetic on lists of tensors, element by element. On a GPU, libtorch computes a list in one or a few kernels,
//! and a separate call for each tensor would launch as many kernels as there are tensors. A build without the
//! shim, and libtorch on a CPU, compute one tensor after the other; the results are the same.

use tch::{Kind, Tensor};

#[cfg(not(libtorch_shim))]
use crate::io::values::are_finite;

/// An operation on each x of a list.
#[derive(Clone, Copy)]
enum Operation<'a> {
    /// x · a
    Scale(f64),
    /// x + a
    Raise(f64),
    /// x / a
    Part(f64),
    /// x · y, with the y of the same place.
    Mul(&'a [Tensor]),
    /// x + y
    Add(&'a [Tensor]),
    /// x - y
    Sub(&'a [Tensor]),
    /// x / y
    Div(&'a [Tensor]),
    /// √x
    Sqrt,
}

/// x ← x · a
pub fn scale_(xs: &[Tensor], a: f64) {
    apply_(xs, Operation::Scale(a));
}

/// x ← x + a
pub fn raise_(xs: &[Tensor], a: f64) {
    apply_(xs, Operation::Raise(a));
}

/// x ← x + y
pub fn add_(xs: &[Tensor], ys: &[Tensor]) {
    apply_(xs, Operation::Add(ys));
}

/// x ← x - y
pub fn sub_(xs: &[Tensor], ys: &[Tensor]) {
    apply_(xs, Operation::Sub(ys));
}

/// x ← √x
pub fn sqrt_(xs: &[Tensor]) {
    apply_(xs, Operation::Sqrt);
}

/// x · a
pub fn scaled(xs: &[Tensor], a: f64) -> Vec<Tensor> {
    apply(xs, Operation::Scale(a))
}

/// x / a
pub fn parts(xs: &[Tensor], a: f64) -> Vec<Tensor> {
    apply(xs, Operation::Part(a))
}

/// x · y
pub fn products(xs: &[Tensor], ys: &[Tensor]) -> Vec<Tensor> {
    apply(xs, Operation::Mul(ys))
}

/// x / y
pub fn quotients(xs: &[Tensor], ys: &[Tensor]) -> Vec<Tensor> {
    apply(xs, Operation::Div(ys))
}

/// Forgets the gradients of parameters, so that the next backward pass starts anew. Without the shim they are set to
/// zero, which is the same except that a GPU has to add to them.
pub fn forget_gradients(parameters: &[Tensor]) {
    #[cfg(libtorch_shim)]
    shim::forget_gradients(parameters);
    #[cfg(not(libtorch_shim))]
    {
        for mut gradient in parameters.iter().map(Tensor::grad).filter(Tensor::defined) {
            let _ = gradient.zero_();
        }
    }
}

/// Divides each gradient by `scale`, in place. Returns `[1]` f32 on the device of the gradients: 0 if all values
/// are finite, and 1 otherwise. `None` for an empty list.
pub fn unscale_(gradients: &[Tensor], scale: f64) -> Option<Tensor> {
    let options = (Kind::Float, gradients.first()?.device());
    let _frozen = tch::no_grad_guard();
    #[cfg(libtorch_shim)]
    {
        let found = Tensor::zeros([1], options);
        let factor = Tensor::full([1], 1.0 / scale, options);
        shim::unscale_(gradients, &found, &factor);
        Some(found)
    }
    #[cfg(not(libtorch_shim))]
    {
        scale_(gradients, 1.0 / scale);
        let found = f64::from(!are_finite(gradients));
        Some(Tensor::full([1], found, options))
    }
}

/// In place. Does nothing to an empty list, which libtorch refuses.
fn apply_(xs: &[Tensor], operation: Operation) {
    if xs.is_empty() {
        return;
    }
    let _frozen = tch::no_grad_guard();
    #[cfg(libtorch_shim)]
    shim::apply_(xs, operation);
    #[cfg(not(libtorch_shim))]
    for (i, x) in xs.iter().enumerate() {
        let mut x = x.shallow_clone();
        let _ = match operation {
            Operation::Scale(a) => x.g_mul_scalar_(a),
            Operation::Raise(a) => x.g_add_scalar_(a),
            Operation::Part(a) => x.g_div_scalar_(a),
            Operation::Mul(ys) => x.g_mul_(&ys[i]),
            Operation::Add(ys) => x.g_add_(&ys[i]),
            Operation::Sub(ys) => x.g_sub_(&ys[i]),
            Operation::Div(ys) => x.g_div_(&ys[i]),
            Operation::Sqrt => x.sqrt_(),
        };
    }
}

/// As new tensors.
fn apply(xs: &[Tensor], operation: Operation) -> Vec<Tensor> {
    if xs.is_empty() {
        return Vec::new();
    }
    let _frozen = tch::no_grad_guard();
    #[cfg(libtorch_shim)]
    return shim::apply(xs, operation);
    #[cfg(not(libtorch_shim))]
    {
        let copies: Vec<Tensor> = xs.iter().map(Tensor::copy).collect();
        apply_(&copies, operation);
        copies
    }
}

#[cfg(libtorch_shim)]
#[allow(
    unsafe_code,
    reason = "C functions; each is given lists of tensors that live during the call"
)]
mod shim {
    use std::ffi::c_char;
    use std::ptr;

    use tch::Tensor;
    use torch_sys::C_tensor;

    use super::Operation;
    use crate::libtorch::checked;

    unsafe extern "C" {
        fn oneactor_foreach(
            operation: u32,
            count: usize,
            xs: *const *mut C_tensor,
            ys: *const *mut C_tensor,
            scalar: f64,
            results: *mut *mut C_tensor,
        ) -> *const c_char;
        fn oneactor_forget_gradients(count: usize, parameters: *const *mut C_tensor);
        fn oneactor_unscale(
            count: usize,
            gradients: *const *mut C_tensor,
            found: *const C_tensor,
            factor: *const C_tensor,
        ) -> *const c_char;
    }

    fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
        tensors.iter().map(|t| t.as_ptr().cast_mut()).collect()
    }

    /// The operation's number in the shim, its second list, and its scalar.
    fn arguments<'a>(operation: Operation<'a>) -> (u32, &'a [Tensor], f64) {
        match operation {
            Operation::Scale(a) => (0, &[], a),
            Operation::Raise(a) => (1, &[], a),
            Operation::Part(a) => (2, &[], a),
            Operation::Mul(ys) => (3, ys, 0.0),
            Operation::Add(ys) => (4, ys, 0.0),
            Operation::Sub(ys) => (5, ys, 0.0),
            Operation::Div(ys) => (6, ys, 0.0),
            Operation::Sqrt => (7, &[], 0.0),
        }
    }

    fn call(xs: &[Tensor], operation: Operation, results: *mut *mut C_tensor) {
        let (number, ys, scalar) = arguments(operation);
        assert!(ys.is_empty() || ys.len() == xs.len(), "lists of one length");
        let (xs, ys) = (pointers(xs), pointers(ys));
        let message = unsafe {
            oneactor_foreach(number, xs.len(), xs.as_ptr(), ys.as_ptr(), scalar, results)
        };
        checked(message).expect("tensors of one shape and device");
    }

    pub fn apply_(xs: &[Tensor], operation: Operation) {
        call(xs, operation, ptr::null_mut());
    }

    pub fn apply(xs: &[Tensor], operation: Operation) -> Vec<Tensor> {
        let mut results = vec![ptr::null_mut(); xs.len()];
        call(xs, operation, results.as_mut_ptr());
        results
            .into_iter()
            .map(|result| unsafe { Tensor::from_ptr(result) })
            .collect()
    }

    pub fn forget_gradients(parameters: &[Tensor]) {
        let parameters = pointers(parameters);
        unsafe { oneactor_forget_gradients(parameters.len(), parameters.as_ptr()) }
    }

    pub fn unscale_(gradients: &[Tensor], found: &Tensor, factor: &Tensor) {
        let gradients = pointers(gradients);
        let message = unsafe {
            oneactor_unscale(
                gradients.len(),
                gradients.as_ptr(),
                found.as_ptr(),
                factor.as_ptr(),
            )
        };
        checked(message).expect("gradients on one device");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> (Vec<Tensor>, Vec<Tensor>) {
        let xs = vec![Tensor::from_slice(&[1.0f32, 4.0]), Tensor::from(9.0f32)];
        let ys = vec![Tensor::from_slice(&[2.0f32, 0.5]), Tensor::from(3.0f32)];
        (xs, ys)
    }

    fn values(tensors: &[Tensor]) -> Vec<f32> {
        let flat: Vec<Tensor> = tensors.iter().map(|t| t.view([-1])).collect();
        Vec::try_from(Tensor::cat(&flat, 0)).expect("numbers")
    }

    #[test]
    fn each_operation_is_that_of_its_name_on_every_tensor() {
        let (xs, ys) = lists();
        assert_eq!(values(&scaled(&xs, 2.0)), [2.0, 8.0, 18.0]);
        assert_eq!(values(&parts(&xs, 2.0)), [0.5, 2.0, 4.5]);
        assert_eq!(values(&products(&xs, &ys)), [2.0, 2.0, 27.0]);
        assert_eq!(values(&quotients(&xs, &ys)), [0.5, 8.0, 3.0]);
        assert_eq!(values(&xs), [1.0, 4.0, 9.0], "the list itself is unchanged");
        scale_(&xs, 2.0);
        assert_eq!(values(&xs), [2.0, 8.0, 18.0]);
        raise_(&xs, -1.0);
        add_(&xs, &ys);
        assert_eq!(values(&xs), [3.0, 7.5, 20.0]);
        sub_(&xs, &ys);
        raise_(&xs, 8.0);
        sqrt_(&xs);
        assert_eq!(values(&xs), [3.0, 15f32.sqrt(), 5.0]);
        assert!(scaled(&[], 2.0).is_empty());
    }

    #[test]
    fn a_forgotten_gradient_is_not_added_to_the_next() {
        let x = Tensor::from(3f32).set_requires_grad(true);
        for _ in 0..2 {
            (&x * &x).backward();
            assert_eq!(x.grad().double_value(&[]), 6.0);
            forget_gradients(std::slice::from_ref(&x));
        }
    }

    #[test]
    fn gradients_are_divided_and_one_that_is_not_finite_is_found() {
        let found =
            |gradients: &[Tensor]| unscale_(gradients, 4096.0).map(|t| t.double_value(&[0]));
        let (gradients, _) = lists();
        assert_eq!(found(&gradients), Some(0.0));
        assert_eq!(values(&gradients)[2], 9.0 / 4096.0);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(found(&[Tensor::from(1f32), Tensor::from(wrong)]), Some(1.0));
        }
        assert_eq!(found(&[]), None);
    }
}
