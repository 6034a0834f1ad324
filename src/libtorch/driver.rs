//! The NVIDIA driver of this machine, and the one that libtorch's CUDA needs.

/// The least driver of each major version of CUDA: NVIDIA's "CUDA Compatibility", table of minor version
/// compatibility.
const LEAST: [(i64, u32); 3] = [(11, 450), (12, 525), (13, 580)];

/// Where the loaded driver writes its version.
const VERSION: &str = "/proc/driver/nvidia/version";

/// libtorch's version of CUDA, major and minor; `None` for a libtorch without CUDA.
pub fn cuda_version() -> Option<(i64, i64)> {
    // A libtorch without CUDA throws here instead of returning 0.
    let has_cuda = super::mapped("libtorch_cuda").is_some() || tch::utils::has_cuda();
    let version = has_cuda.then(tch::utils::version_cudart)?;
    (version > 0).then_some((version / 1000, version % 1000 / 10))
}

/// The version of the driver that is loaded, for instance `580.65.06`; `None` if there is none.
pub fn found() -> Option<String> {
    version_in(&std::fs::read_to_string(VERSION).ok()?)
}

/// What libtorch's CUDA needs of the driver, and what this machine has: `CUDA 13.0 needs an NVIDIA driver 580 or
/// newer, and this machine has none`. `None` if the driver is new enough, and for a libtorch without CUDA.
pub fn shortage() -> Option<String> {
    shortage_of(cuda_version()?, found().as_deref())
}

fn shortage_of((major, minor): (i64, i64), driver: Option<&str>) -> Option<String> {
    let (_, least) = LEAST.into_iter().find(|(cuda, _)| *cuda == major)?;
    let number = |driver: &str| driver.split('.').next()?.parse::<u32>().ok();
    let has = match driver {
        Some(driver) if number(driver).is_none_or(|number| number >= least) => return None,
        Some(driver) => format!("the driver {driver}"),
        None => "none".to_owned(),
    };
    Some(format!(
        "CUDA {major}.{minor} needs an NVIDIA driver {least} or newer, and this machine has {has}"
    ))
}

/// The version in the driver's own line: the first word of numbers between dots.
fn version_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_driver_s_line() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder)\n\
                    GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)";
        assert_eq!(version_in(open).as_deref(), Some("580.65.06"));
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024";
        assert_eq!(version_in(closed).as_deref(), Some("470.256.02"));
        assert_eq!(version_in("GCC version: 12.2.0"), None);
    }

    #[test]
    fn a_driver_that_is_too_old_or_missing_is_named_with_the_one_that_is_needed() {
        assert_eq!(shortage_of((13, 0), Some("580.65.06")), None);
        assert_eq!(shortage_of((12, 8), Some("550.54")), None);
        assert_eq!(
            shortage_of((13, 0), Some("570.86.15")).as_deref(),
            Some(
                "CUDA 13.0 needs an NVIDIA driver 580 or newer, and this machine has the driver 570.86.15"
            )
        );
        let none = shortage_of((13, 0), None).expect("it is missing");
        assert!(none.ends_with("and this machine has none"), "{none}");
        // A version of CUDA that this program does not know.
        assert_eq!(shortage_of((14, 0), None), None);
    }
}
