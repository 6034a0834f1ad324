//! The binary finds libtorch by itself, and maps CUDA if libtorch has CUDA. Without the build
//! script the linker drops `libtorch_cuda.so`, and no GPU is ever found. This shows on a machine
//! without a GPU too, because the versions of CUDA's libraries cannot be read.

use std::path::Path;
use std::process::Command;

/// The libraries that this process has mapped; it is linked like the binary.
fn mapped() -> Vec<String> {
    let _ = tch::get_num_threads();
    let maps =
        std::fs::read_to_string("/proc/self/maps").expect("Linux tells what a process has mapped");
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5).map(str::to_owned))
        .collect()
}

fn libtorch_has_cuda() -> bool {
    let libraries = mapped();
    let cpu = libraries
        .iter()
        .find(|path| path.contains("libtorch_cpu.so"))
        .expect("libtorch is shared");
    Path::new(cpu).with_file_name("libtorch_cuda.so").exists()
}

#[test]
fn cuda_is_mapped_if_libtorch_has_it() {
    if !libtorch_has_cuda() {
        eprintln!("this libtorch has no CUDA: nothing to link");
        return;
    }
    assert!(
        mapped()
            .iter()
            .any(|path| path.contains("libtorch_cuda.so")),
        "libtorch_cuda.so is not mapped"
    );
    assert!(tch::utils::version_cudnn() > 0, "cuDNN has no version");
    assert!(
        tch::utils::version_cudart() > 0,
        "the CUDA runtime has no version"
    );
}

#[test]
fn the_binary_starts_without_library_paths_and_says_whether_cuda_is_linked() {
    let output = Command::new(env!("CARGO_BIN_EXE_oneactor"))
        .arg("doctor")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("LD_PRELOAD")
        .output()
        .expect("the binary starts");
    let report = String::from_utf8(output.stdout).expect("the report is text");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = report
        .lines()
        .find(|line| line.starts_with("cuda linked"))
        .expect("the report has the line");
    assert_eq!(line.contains("yes"), libtorch_has_cuda(), "{line}");
}

/// The binary with the names of the CUDA libraries replaced by names of libraries that are mapped
/// anyway, because the tarball for the CPU leaves the CUDA libraries out (`scripts/release.sh`). A
/// shorter name fits into the place of a longer one.
fn without_cuda(binary: &[u8]) -> Vec<u8> {
    let mut bytes = binary.to_vec();
    for (library, other) in [
        (&b"\0libtorch_cuda.so\0"[..], &b"\0libtorch_cpu.so\0\0"[..]),
        (b"\0libtorch.so\0", b"\0libc10.so\0\0\0"),
    ] {
        let at = bytes
            .windows(library.len())
            .position(|part| part == library);
        let at = at.expect("the binary names the library");
        bytes[at..at + library.len()].copy_from_slice(other);
    }
    bytes
}

#[test]
fn doctor_works_if_the_cuda_libraries_are_missing() {
    if !libtorch_has_cuda() {
        eprintln!("this libtorch has no CUDA: the test above covers this case");
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oneactor-without-cuda");
    let binary = env!("CARGO_BIN_EXE_oneactor");
    std::fs::copy(binary, &path).expect("the binary is copied, with its rights");
    let bytes = std::fs::read(binary).expect("the binary is read");
    std::fs::write(&path, without_cuda(&bytes)).expect("the copy is written");
    let output = Command::new(&path)
        .arg("doctor")
        .output()
        .expect("the copy starts");
    let report = String::from_utf8(output.stdout).expect("the report is text");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let has = |name: &str, value: &str| {
        let line = report.lines().find(|line| line.starts_with(name));
        line.is_some_and(|line| line.ends_with(value))
    };
    assert!(
        has("cuda linked", "no") && has("cuda version", "none"),
        "{report}"
    );
}
