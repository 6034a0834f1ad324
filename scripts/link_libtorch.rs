//! Build script: links libtorch so that the binary starts without `LD_LIBRARY_PATH` and finds a
//! GPU, and compiles the C++ file for functions that the binding lacks (`src/libtorch.rs`).
//!
//! Nothing in our code refers to a symbol of `libtorch_cuda.so`: the library registers itself by
//! static constructors. The linker therefore drops it (`--as-needed` is rustc's default), and a
//! binary linked that way never finds CUDA. `torch-sys` cannot correct this, because link arguments
//! reach only a package's own targets. So the final package asks for the library by name.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=scripts/link_libtorch.rs");
    println!("cargo:rustc-check-cfg=cfg(libtorch_shim)");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        return;
    };
    compile_shim(&lib);
    let dir = lib.display();
    println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    println!("cargo:rustc-link-search=native={dir}");
    // A binary on another machine finds a libtorch in the folder `lib` beside it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed");
        println!("cargo:rustc-link-arg=-L{dir}");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-ltorch");
        println!("cargo:rustc-link-arg=-Wl,--pop-state");
    }
}

/// Compiles the shim if libtorch's headers exist. Without them the program works without the shim,
/// and `oneactor doctor` says so.
#[cfg(feature = "shim")]
fn compile_shim(lib: &Path) {
    const SOURCE: &str = "src/libtorch/shim.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // As for `torch-sys`, headers lie beside the libraries unless the user says otherwise.
    let root = std::env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.or_else(|| lib.parent().map(Path::to_path_buf));
    let include = root.unwrap_or_default().join("include");
    if !include.join("ATen/Context.h").is_file() {
        let place = include.display();
        println!("cargo:warning=no headers of libtorch in {place}: building without the shim");
        return;
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Warnings in libtorch's headers cannot be corrected here.
        .warnings(false)
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .file(SOURCE)
        .compile("oneactor_shim");
    println!("cargo:rustc-cfg=libtorch_shim");
}

#[cfg(not(feature = "shim"))]
fn compile_shim(_: &Path) {}
