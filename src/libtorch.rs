//! What libtorch has and the binding does not reach: TF32, the choice of attention kernels, the
//! allocator's settings, peak memory of a GPU, and memory that the host's allocator keeps; in
//! `linear`, oneDNN's product of matrices, in [`pinned()`], memory that a GPU fetches from, and beside them the
//! generator of random numbers, [`seeded`]. Behind it is `libtorch/shim.cpp`, which the build script compiles
//! (feature `shim`, on by default).
//!
//! All that is set here is state of the whole process. No call needs a CUDA header; what a GPU does
//! with the settings has not been seen yet.

mod attention;
mod generator;
pub(crate) mod linear;
mod pinned;

use anyhow::{Result, anyhow};
use tch::Device;

use crate::error::usage;
pub use attention::{
    Asked, AttentionImplementation, Chosen, Refusal, any_attention, attention, set_attention,
};
pub use generator::{Seeded, noise, seed_in_use, seeded};
pub use pinned::pinned;

/// Where f32 is computed with TF32: 10 bits of mantissa in place of 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tf32 {
    /// In products of matrices.
    pub products: bool,
    /// In convolutions.
    pub convolutions: bool,
}

/// libtorch's own choice.
const TF32_DEFAULT: Tf32 = Tf32 {
    products: false,
    convolutions: true,
};

/// Whether this build has the shim.
pub fn has_shim() -> bool {
    cfg!(libtorch_shim)
}

/// Refuses `flag` where the shim is missing.
///
/// # Errors
/// In a build without the shim.
pub fn require(flag: &str) -> Result<()> {
    if has_shim() {
        return Ok(());
    }
    Err(usage(format!(
        "{flag}: this build lacks the C++ part that it needs: build with the cargo feature \"shim\" \
         and libtorch's headers"
    )))
}

/// Switches TF32 on or off everywhere; `None` is libtorch's own choice, convolutions alone.
///
/// # Errors
/// When libtorch refuses, or in a build without the shim.
pub fn set_tf32(everywhere: Option<bool>) -> Result<()> {
    let Tf32 {
        products,
        convolutions,
    } = everywhere.map_or(TF32_DEFAULT, |is_on| Tf32 {
        products: is_on,
        convolutions: is_on,
    });
    shim::set_tf32(products, convolutions)
}

/// Where TF32 is on.
///
/// # Errors
/// As [`set_tf32`].
pub fn tf32() -> Result<Tf32> {
    shim::tf32()
}

/// libtorch's switch, which it reads at the first tensor.
const HUGE_PAGES: &str = "THP_MEM_ALLOC_ENABLE";

/// Asks libtorch to take huge pages for tensors of 2 MB and more, where Linux gives them on request. A
/// large tensor is new memory each time, and to fault it in by small pages costs more than an addition:
/// a twelfth of the time of decoding a picture of 512×512. What the user has set stays.
///
/// To be called first of all, while there is one thread.
pub fn ask_for_huge_pages() {
    if std::env::var_os(HUGE_PAGES).is_none() {
        // SAFETY: no other thread reads or writes the environment yet.
        #[allow(unsafe_code, reason = "libtorch has no other switch for this")]
        unsafe {
            std::env::set_var(HUGE_PAGES, "1");
        }
    }
}

/// Blocks of this size and more, in bytes, are mapped one by one: each holds at least one whole huge page.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_ALONE: i32 = 4 << 20;

/// Lets memory that tensors have freed go back to the system at once. glibc learns from the first large block that is freed
/// to keep blocks of up to 32 MB for later ones, into which the next ones, being larger, do not fit: a third of the toy's
/// memory at 512 px. What the user has set by `GLIBC_TUNABLES` or glibc's older variables stays.
///
/// To be called first of all, as above.
pub fn keep_no_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let is_set = |name: &&str| std::env::var_os(name).is_some();
        let settings = [
            "GLIBC_TUNABLES",
            "MALLOC_MMAP_THRESHOLD_",
            "MALLOC_TRIM_THRESHOLD_",
        ];
        if !settings.iter().any(is_set) {
            // SAFETY: two settings of the allocator, each a number; it may refuse them, and then goes on as before.
            #[allow(unsafe_code, reason = "glibc has no safe binding")]
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ALONE);
                libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_ALONE);
            }
        }
    }
}

/// Ends the process with this exit code, without the destructors of libtorch's libraries: those of a build for CUDA read
/// 120 MB of their own files before they end, which was the peak of a small job and the longer part of a short one.
/// Nothing of this program is left to be done: results are flushed as they are written (`streams`).
pub fn leave(exit_code: u8) -> ! {
    // SAFETY: it takes a number and does not return; the system takes back what the process has.
    #[allow(
        unsafe_code,
        reason = "the standard library has no exit without destructors"
    )]
    unsafe {
        libc::_exit(i32::from(exit_code))
    }
}

/// Environment variables with settings of the allocator, the second one's name before torch 2.9.
const ALLOCATOR_VARIABLES: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];

/// Lets the blocks of a GPU's allocator grow, so that memory which one stage has freed fits the next,
/// unless the user has settings of his own for it. To be called before the GPU is used.
///
/// # Errors
/// When libtorch refuses.
pub fn prepare_allocator(device: Device) -> Result<()> {
    let is_set = |name: &&str| std::env::var_os(name).is_some();
    if !has_shim() || !device.is_cuda() || ALLOCATOR_VARIABLES.iter().any(is_set) {
        return Ok(());
    }
    shim::set_allocator(c"expandable_segments:True")
}

/// Whether the blocks of a GPU's allocator can grow.
///
/// # Errors
/// In a build without the shim.
pub fn has_expandable_segments() -> Result<bool> {
    shim::has_expandable_segments()
}

/// The most bytes that tensors on this device have held at a time since [`reset_peak_memory`]; `None`
/// on a CPU, in a build without the shim, and where the GPU has not been used.
pub fn peak_memory(device: Device) -> Option<i64> {
    shim::peak_memory(gpu(device)?).ok()
}

/// Begins to look for the peak anew. Where there is none to look for, nothing is done.
pub fn reset_peak_memory(device: Device) {
    if let Some(gpu) = gpu(device) {
        // A GPU that has not been used has no peak yet.
        let _ = shim::reset_peak_memory(gpu);
    }
}

/// Gives memory of the host that was freed back to the system, as far as it can be. In a build without
/// the shim that is left to the allocator.
pub fn trim_memory() {
    shim::trim_memory();
}

/// Bytes of this process that are in memory now, files that it has mapped included; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The most bytes of this process that were in memory at a time so far; `None` where the system does not tell.
pub fn peak_resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1024 * kilobytes)
}

fn gpu(device: Device) -> Option<i8> {
    match device {
        Device::Cuda(index) => i8::try_from(index).ok(),
        _ => None,
    }
}

/// The message of a shim's function that has failed.
#[cfg(libtorch_shim)]
fn checked(message: *const std::ffi::c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a C string that stays valid until this thread's next call.
    #[allow(unsafe_code)]
    let message = unsafe { std::ffi::CStr::from_ptr(message) }.to_string_lossy();
    Err(anyhow!(
        "libtorch: {}",
        message.lines().next().unwrap_or_default()
    ))
}

#[cfg(libtorch_shim)]
#[allow(
    unsafe_code,
    reason = "C functions; each is given pointers to values that live during the call"
)]
mod shim {
    use std::ffi::{CStr, c_char};

    use std::ptr;

    use tch::Tensor;
    use torch_sys::C_tensor;

    use super::{Result, Tf32, checked};

    mod c {
        use super::{C_tensor, c_char};
        unsafe extern "C" {
            pub fn oneactor_set_tf32(products: bool, convolutions: bool) -> *const c_char;
            pub fn oneactor_tf32(products: *mut bool, convolutions: *mut bool) -> *const c_char;
            pub fn oneactor_set_attention(kernels: u32) -> *const c_char;
            pub fn oneactor_attention() -> u32;
            pub fn oneactor_finds_attention(
                query: *const C_tensor,
                mask: *const C_tensor,
                finds: *mut bool,
            ) -> *const c_char;
            pub fn oneactor_set_allocator(settings: *const c_char) -> *const c_char;
            pub fn oneactor_has_expandable_segments(grows: *mut bool) -> *const c_char;
            pub fn oneactor_trim_memory();
            pub fn oneactor_peak_memory(gpu: i8, bytes: *mut i64) -> *const c_char;
            pub fn oneactor_reset_peak_memory(gpu: i8) -> *const c_char;
        }
    }

    pub fn set_tf32(products: bool, convolutions: bool) -> Result<()> {
        checked(unsafe { c::oneactor_set_tf32(products, convolutions) })
    }

    pub fn tf32() -> Result<Tf32> {
        let (mut products, mut convolutions) = (false, false);
        checked(unsafe { c::oneactor_tf32(&raw mut products, &raw mut convolutions) })?;
        Ok(Tf32 {
            products,
            convolutions,
        })
    }

    pub fn set_attention(kernels: u32) -> Result<()> {
        checked(unsafe { c::oneactor_set_attention(kernels) })
    }

    pub fn attention() -> Result<u32> {
        Ok(unsafe { c::oneactor_attention() })
    }

    pub fn finds_attention(query: &Tensor, mask: Option<&Tensor>) -> Result<bool> {
        let mask = mask.map_or(ptr::null(), Tensor::as_ptr);
        let mut finds = false;
        checked(unsafe { c::oneactor_finds_attention(query.as_ptr(), mask, &raw mut finds) })?;
        Ok(finds)
    }

    pub fn set_allocator(settings: &CStr) -> Result<()> {
        checked(unsafe { c::oneactor_set_allocator(settings.as_ptr()) })
    }

    pub fn has_expandable_segments() -> Result<bool> {
        let mut grows = false;
        checked(unsafe { c::oneactor_has_expandable_segments(&raw mut grows) })?;
        Ok(grows)
    }

    pub fn trim_memory() {
        unsafe { c::oneactor_trim_memory() }
    }

    pub fn peak_memory(gpu: i8) -> Result<i64> {
        let mut bytes = 0;
        checked(unsafe { c::oneactor_peak_memory(gpu, &raw mut bytes) })?;
        Ok(bytes)
    }

    pub fn reset_peak_memory(gpu: i8) -> Result<()> {
        checked(unsafe { c::oneactor_reset_peak_memory(gpu) })
    }
}

/// The same without the shim: nothing can be asked or set.
#[cfg(not(libtorch_shim))]
mod shim {
    use std::ffi::CStr;

    use tch::Tensor;

    use super::{Result, Tf32, anyhow};

    fn missing<T>() -> Result<T> {
        Err(anyhow!("built without the feature \"shim\""))
    }

    pub fn set_tf32(_: bool, _: bool) -> Result<()> {
        missing()
    }
    pub fn tf32() -> Result<Tf32> {
        missing()
    }
    pub fn set_attention(_: u32) -> Result<()> {
        missing()
    }
    pub fn attention() -> Result<u32> {
        missing()
    }
    pub fn finds_attention(_: &Tensor, _: Option<&Tensor>) -> Result<bool> {
        missing()
    }
    pub fn set_allocator(_: &CStr) -> Result<()> {
        missing()
    }
    pub fn has_expandable_segments() -> Result<bool> {
        missing()
    }
    pub fn trim_memory() {}
    pub fn peak_memory(_: i8) -> Result<i64> {
        missing()
    }
    pub fn reset_peak_memory(_: i8) -> Result<()> {
        missing()
    }
}

#[cfg(all(test, libtorch_shim))]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    // One test: the state is that of the process, and tests run side by side.
    #[test]
    fn what_is_set_can_be_asked_for_and_is_taken_back() -> Result<()> {
        let at_first = tf32()?;
        assert_eq!(at_first, TF32_DEFAULT, "libtorch's own choice has changed");
        for is_on in [true, false] {
            set_tf32(Some(is_on))?;
            assert_eq!((tf32()?.products, tf32()?.convolutions), (is_on, is_on));
        }
        set_tf32(None)?;
        assert_eq!(tf32()?, at_first);

        // On a CPU the binding tells which kernel was chosen: 0 is mathematics, 1 flash.
        let _drawing = seeded(0);
        let q = Tensor::randn([1, 2, 16, 8], (Kind::Float, Device::Cpu));
        let choice = || {
            let none = None::<&Tensor>;
            Tensor::internal_fused_sdp_choice(&q, &q, &q, none, 0.0, false, None, false)
        };
        assert_eq!(attention()?, AttentionImplementation::ALL);
        assert_eq!(choice(), 1);
        set_attention(Some(AttentionImplementation::Math))?;
        assert_eq!(attention()?, [AttentionImplementation::Math]);
        let any = any_attention();
        assert_eq!(attention()?, AttentionImplementation::ALL);
        drop(any);
        assert_eq!(attention()?, [AttentionImplementation::Math]);
        assert_eq!(choice(), 0);
        // On a CPU flash computes whatever is asked here, and asking leaves no trace.
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (head_dim, is_masked) in [(8, false), (40, true), (160, false), (512, true)] {
                let asked = Asked {
                    device: Device::Cpu,
                    kind,
                    head_dim,
                    is_masked,
                };
                assert!(AttentionImplementation::Flash.computes(asked)?, "{asked:?}");
                assert!(AttentionImplementation::Math.computes(asked)?, "{asked:?}");
            }
        }
        assert_eq!(attention()?, [AttentionImplementation::Math]);
        set_attention(None)?;
        assert_eq!(attention()?, AttentionImplementation::ALL);
        Ok(())
    }

    #[test]
    fn a_cpu_has_no_peak_and_a_gpu_that_is_not_there_neither() {
        reset_peak_memory(Device::Cpu);
        assert_eq!(peak_memory(Device::Cpu), None);
        if !tch::Cuda::is_available() {
            reset_peak_memory(Device::Cuda(0));
            assert_eq!(peak_memory(Device::Cuda(0)), None);
        }
    }

    #[test]
    fn a_gpu_s_blocks_grow_unless_the_user_says_otherwise() -> Result<()> {
        if ALLOCATOR_VARIABLES
            .iter()
            .all(|name| std::env::var_os(name).is_none())
        {
            prepare_allocator(Device::Cpu)?;
            assert!(!has_expandable_segments()?, "a CPU needs none of it");
            prepare_allocator(Device::Cuda(0))?;
            assert!(has_expandable_segments()?);
        }
        Ok(())
    }

    #[test]
    fn what_libtorch_refuses_is_an_error_of_one_line() {
        let error = shim::set_allocator(c"no_such_setting:1").expect_err("it is unknown");
        let error = error.to_string();
        assert!(
            error.starts_with("libtorch: ") && error.lines().count() == 1,
            "{error}"
        );
    }
}
