//! Comparing what a GPU made with what the CPU made.

use std::path::{Path, PathBuf};

use oneactor::io::tensors::TensorFile;
use serde_json::Value;

use crate::common::difference;
use crate::common::program::{names, pixels};
use crate::gpu::Gpu;

/// Relative difference of results in f32. The kernels sum in another order than the program's own
/// products on a CPU; after a few steps of the toy the results differ by at most 4e-6.
pub const F32: f64 = 4e-5;

/// Relative difference of tuned weights in f32. Adam divides each gradient by its own size, so a
/// small gradient keeps its relative rounding error. After three steps the largest difference is
/// 1.2e-4.
pub const TUNED: f64 = 1e-3;

/// Pictures below a folder, in order.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(pictures(&path));
        } else if path.extension().is_some_and(|ending| ending == "png") {
            found.push(path);
        }
    }
    found
}

/// The folders hold the same pictures. A value may differ by one level of 255, because a tiny
/// difference can change how a value is rounded.
#[track_caller]
pub fn same_pictures(gpu: &Path, cpu: &Path) {
    let [of_gpu, of_cpu] = [gpu, cpu].map(pictures);
    assert!(!of_gpu.is_empty(), "{}: no pictures", gpu.display());
    assert_eq!(of_gpu.len(), of_cpu.len());
    for (on_gpu, on_cpu) in of_gpu.iter().zip(&of_cpu) {
        assert_eq!(on_gpu.strip_prefix(gpu).ok(), on_cpu.strip_prefix(cpu).ok());
        let (found, expected) = (pixels(on_gpu), pixels(on_cpu));
        assert_eq!(found.len(), expected.len());
        let largest = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(
            largest <= Some(1),
            "{}: {largest:?} levels",
            on_gpu.display()
        );
    }
}

/// The files hold the same tensors: the norm of a difference over the expected norm is at most
/// `bar`.
#[track_caller]
pub fn same_tensors(gpu: &Path, cpu: &Path, bar: f64) {
    let [found, expected] = [gpu, cpu].map(|path| TensorFile::read(path).expect("it is readable"));
    assert!(found.tensors.keys().eq(expected.tensors.keys()));
    for (name, tensor) in &found.tensors {
        let difference = difference(tensor, &expected.tensors[name]);
        assert!(
            difference.l2 <= bar,
            "{}: {name}: {}",
            gpu.display(),
            difference.text
        );
    }
}

/// The values are equal, numbers up to a relative difference of `bar` (below 1: an absolute one).
#[track_caller]
pub fn same_values(found: &Value, expected: &Value, bar: f64) {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let [a, b] = [found, expected].map(|number| number.as_f64().expect("a number"));
            assert!((a - b).abs() <= bar * b.abs().max(1.0), "{a}, expected {b}");
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                same_values(found, expected, bar);
            }
        }
        (Value::Object(found), Value::Object(expected)) => {
            assert!(
                found.keys().eq(expected.keys()),
                "{found:?}, expected {expected:?}"
            );
            for (key, value) in found {
                same_values(value, &expected[key], bar);
            }
        }
        (found, expected) => assert_eq!(found, expected),
    }
}

impl Gpu {
    /// Draws on both devices in f32, into `gpu-NAME` and `cpu-NAME`, and compares the pictures.
    #[track_caller]
    pub fn draws_the_same(&self, name: &str, line: &str) {
        self.on_cpu(&format!("{line} -o cpu-{name}"));
        self.on_gpu(&format!("{line} -o gpu-{name} --dtype fp32"));
        let [gpu, cpu] = ["gpu", "cpu"].map(|device| self.path(&format!("{device}-{name}")));
        same_pictures(&gpu, &cpu);
    }
}
