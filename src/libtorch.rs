//! The parts of libtorch that the Rust binding does not reach: TF32, the choice of attention
//! kernels, the allocator's settings, a GPU's peak memory, and memory that the host's allocator
//! keeps. `linear` holds oneDNN's matrix product, [`pinned()`] gives host memory that a GPU can
//! read directly, and [`seeded`] guards the random number generator. The C++ side is
//! `libtorch/shim.cpp`, which the build script compiles (feature `shim`, on by default).
//!
//! All settings here belong to the whole process. No call needs a CUDA header. What the settings do
//! on a GPU has not been tested yet.

mod attention;
pub(crate) mod driver;
pub(crate) mod foreach;
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
pub use pinned::{pinned, send, sent};

/// Where f32 is computed with TF32: 10 bits of mantissa instead of 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tf32 {
    /// In matrix products.
    pub products: bool,
    /// In convolutions.
    pub convolutions: bool,
}

/// libtorch's default.
const TF32_DEFAULT: Tf32 = Tf32 {
    products: false,
    convolutions: true,
};

/// Whether this build contains the shim.
pub fn has_shim() -> bool {
    cfg!(libtorch_shim)
}

/// Returns an error that names `flag` in a build without the shim.
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

/// Switches TF32 on or off everywhere; `None` restores libtorch's default, convolutions alone.
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

/// The environment variable for huge pages, which libtorch reads when it allocates the first
/// tensor.
const HUGE_PAGES: &str = "THP_MEM_ALLOC_ENABLE";

/// Asks libtorch to use huge pages for tensors of 2 MB and more, where Linux gives huge pages on
/// request. A large tensor is new memory each time, and mapping it in small pages takes longer than
/// an addition: a twelfth of the time needed to decode a picture of 512×512. A value that the user
/// has set is kept.
///
/// Call it first of all, while the process has only one thread.
pub fn ask_for_huge_pages() {
    if std::env::var_os(HUGE_PAGES).is_none() {
        // SAFETY: no other thread exists yet that could read or write the environment.
        #[allow(unsafe_code, reason = "libtorch has no other switch for this")]
        unsafe {
            std::env::set_var(HUGE_PAGES, "1");
        }
    }
}

/// Blocks of this many bytes or more are mapped one by one: each holds at least one whole huge
/// page.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_ALONE: i32 = 4 << 20;

/// Returns memory that tensors have freed to the system at once. When the first large block is
/// freed, glibc starts to keep blocks of up to 32 MB for later ones. The next blocks are larger and
/// do not fit, which wastes a third of the toy's memory at 512 px. A user's own setting in
/// `GLIBC_TUNABLES` or in glibc's older variables is kept.
///
/// Call it first of all, as [`ask_for_huge_pages`].
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
            // SAFETY: both calls pass plain numbers. If the allocator refuses a setting, nothing
            // changes.
            #[allow(unsafe_code, reason = "glibc has no safe binding")]
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ALONE);
                libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_ALONE);
            }
        }
    }
}

/// Ends the process with this exit code, without running the destructors of libtorch's libraries.
/// In a build for CUDA those destructors read 120 MB of the libraries' files, which was the peak
/// memory of a small job and most of the time of a short one. Nothing is lost: results are flushed
/// as they are written (`streams`).
pub fn leave(exit_code: u8) -> ! {
    // SAFETY: the function takes a number and does not return; the system frees the process's
    // memory.
    #[allow(
        unsafe_code,
        reason = "the standard library has no exit without destructors"
    )]
    unsafe {
        libc::_exit(i32::from(exit_code))
    }
}

/// Whether `libtorch_cuda.so` is the simulated one of `tests/fakecuda`, whose devices are no GPUs.
pub fn has_simulated_gpu() -> bool {
    // SAFETY: the name is a C string; the address that may be found is not used.
    #[allow(unsafe_code, reason = "a C function")]
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"oneactor_simulated_cuda".as_ptr()) };
    !symbol.is_null()
}

/// Environment variables with the allocator's settings; the second is the name before torch 2.9.
const ALLOCATOR_VARIABLES: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];

/// Lets the blocks of a GPU's allocator grow, so that memory freed by one stage fits the next
/// stage. Does nothing if the user has set the allocator's variables. Call it before the GPU is
/// used.
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

/// The largest number of bytes that tensors on this device have held at the same time since
/// [`reset_peak_memory`]. `None` on a CPU, in a build without the shim, and before the GPU is used.
pub fn peak_memory(device: Device) -> Option<i64> {
    shim::peak_memory(gpu(device)?).ok()
}

/// Starts a new measurement of the peak; does nothing where [`peak_memory`] is `None`.
pub fn reset_peak_memory(device: Device) {
    if let Some(gpu) = gpu(device) {
        // A GPU that has not been used has no peak yet.
        let _ = shim::reset_peak_memory(gpu);
    }
}

/// Returns freed memory of the host to the system, as far as possible. Does nothing in a build
/// without the shim.
pub fn trim_memory() {
    shim::trim_memory();
}

/// The path of a library whose name begins so and that this process has mapped; `None` where the system does not
/// tell.
pub fn mapped(library: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| {
            path.rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(library))
        })
        .map(str::to_owned)
}

/// Bytes of this process that are in memory now, including mapped files; `None` where the system
/// does not tell.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The largest number of bytes of this process that were in memory at the same time; `None` where
/// the system does not tell.
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

/// The message of a shim function that has failed.
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

/// The same functions in a build without the shim: every call fails or does nothing.
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

    // One test, because the state belongs to the process and tests run in parallel.
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

        // On a CPU the binding tells which kernel was chosen: 0 is math, 1 flash.
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
        // On a CPU flash computes everything asked here, and asking changes no setting.
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
