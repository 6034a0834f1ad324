//! Host memory that a GPU can read directly.

use tch::{Device, Tensor};

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

/// Copies `from` to `to`, which is of the same shape. From page-locked memory to a GPU the copy may still be running
/// when this returns: `from` may not change before [`tch::Cuda::synchronize`].
pub fn send(to: &Tensor, from: &Tensor) {
    #[cfg(libtorch_shim)]
    {
        use std::ffi::c_char;

        use torch_sys::C_tensor;

        #[allow(
            unsafe_code,
            reason = "a C function, given tensors that live during the call"
        )]
        let message = {
            unsafe extern "C" {
                fn oneactor_send(to: *mut C_tensor, from: *const C_tensor) -> *const c_char;
            }
            unsafe { oneactor_send(to.as_ptr().cast_mut(), from.as_ptr()) }
        };
        super::checked(message).expect("tensors of one shape");
    }
    #[cfg(not(libtorch_shim))]
    to.shallow_clone().copy_(from);
}

/// A tensor of the host on `device`. The host does not wait for a GPU: the values are copied to page-locked
/// memory, from which the GPU reads them in the order of its work. On the CPU this is the tensor itself.
pub fn sent(tensor: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() || tensor.numel() == 0 {
        return tensor.to_device(device);
    }
    let kind = tensor.kind();
    match pinned(tensor.numel() * kind.elt_size_in_bytes()) {
        None => tensor.to_device(device),
        Some(bytes) => {
            let mut staged = bytes.view_dtype(kind).view(&tensor.size()[..]);
            staged.copy_(tensor);
            staged.to_device_(device, kind, true, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Cuda, Kind};

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
