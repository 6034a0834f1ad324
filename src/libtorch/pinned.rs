//! Host memory that a GPU can read directly.

use tch::Tensor;

/// `[size]` u8 in page-locked memory. `None` if the system has no room for it, if there is no GPU,
/// and in a build without the shim.
#[cfg(libtorch_shim)]
#[allow(
    unsafe_code,
    reason = "a C function, which makes the tensor that it returns"
)]
pub fn pinned(size: usize) -> Option<Tensor> {
    use std::ffi::c_char;
    use std::ptr;

    use torch_sys::C_tensor;

    unsafe extern "C" {
        fn oneactor_pinned(bytes: *mut *mut C_tensor, size: i64) -> *const c_char;
    }
    let mut bytes = ptr::null_mut();
    let refusal = unsafe { oneactor_pinned(&raw mut bytes, i64::try_from(size).ok()?) };
    refusal
        .is_null()
        .then(|| unsafe { Tensor::from_ptr(bytes) })
}

#[cfg(not(libtorch_shim))]
pub fn pinned(_: usize) -> Option<Tensor> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Cuda, Device, Kind};

    #[test]
    fn without_a_gpu_nothing_is_pinned() {
        match pinned(1000) {
            None => assert!(!Cuda::is_available() || !crate::libtorch::has_shim()),
            Some(bytes) => {
                assert!(Cuda::is_available());
                assert!(bytes.is_pinned(Device::Cuda(0)));
                assert_eq!((bytes.size(), bytes.kind()), (vec![1000], Kind::Uint8));
            }
        }
    }
}
