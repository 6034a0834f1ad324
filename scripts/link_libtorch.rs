//! Build script: links libtorch so that the binary starts without `LD_LIBRARY_PATH` and sees a GPU.
//!
//! Nothing in our code refers to a symbol of `libtorch_cuda.so`: it registers itself by static
//! constructors. The linker therefore drops it (`--as-needed` is rustc's default), and a binary
//! linked that way never finds CUDA. `torch-sys` can not mend it, because link arguments reach
//! only a package's own targets; so the final package asks for the library by name.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=scripts/link_libtorch.rs");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        return;
    };
    let dir = lib.display();
    println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    println!("cargo:rustc-link-search=native={dir}");
    // A binary moved to another machine still finds a libtorch laid beside it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed");
        println!("cargo:rustc-link-arg=-L{dir}");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-ltorch");
        println!("cargo:rustc-link-arg=-Wl,--pop-state");
    }
}
