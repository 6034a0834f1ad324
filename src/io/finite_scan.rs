//! Checks that every value of a model's weights is finite while the work with the model has already
//! begun: a model can be used as soon as its files are mapped, and no result is written before all
//! values were checked.

use std::cell::{Cell, OnceCell};
use std::fmt::Write as _;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use safetensors::Dtype;
use tch::Kind;

use super::mapped::let_go;
use crate::error::model;

/// The number of problems of one kind that a report lists; further problems are only counted.
pub(super) const LISTED: usize = 12;

/// The values of one tensor as they are stored in a file.
pub struct FloatBytes {
    /// Key and file of the tensor, for messages.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// The precision in which the values are used: a value that is finite in the file may overflow
    /// in fp16.
    pub(super) kind: Kind,
    pub(super) data: &'static [u8],
    /// Whether the bytes are used after the check. If not, they need not stay in memory.
    pub(super) stays: bool,
}

impl FloatBytes {
    fn are_finite(&self) -> bool {
        let overflow = overflow(self.kind);
        match self.dtype {
            Dtype::F64 => largest::<u64, 8>(self.data, u64::from_le_bytes) < overflow.to_bits(),
            Dtype::F32 => {
                largest::<u32, 4>(self.data, u32::from_le_bytes) < (overflow as f32).to_bits()
            }
            // The upper half of an f32.
            Dtype::BF16 => {
                let largest = largest::<u16, 2>(self.data, u16::from_le_bytes);
                u32::from(largest) << 16 < (overflow as f32).to_bits()
            }
            // 65504 is the largest number in fp16, and all other precisions can hold it.
            _ => largest::<u16, 2>(self.data, u16::from_le_bytes) < 0x7c00,
        }
    }
}

/// The smallest number that rounds to infinity in this precision, halfway between the largest
/// finite number and the next power of two.
fn overflow(kind: Kind) -> f64 {
    let halfway = |mantissa_bits: i32, exponent: i32| {
        2f64.powi(exponent) * (2.0 - 2f64.powi(-mantissa_bits - 1))
    };
    match kind {
        Kind::Half => halfway(10, 15),
        Kind::BFloat16 => halfway(7, 127),
        _ => halfway(23, 127),
    }
}

/// The bits of a floating-point number as an unsigned integer; the top bit is the sign.
trait FloatBits: Copy + Ord + Default {
    fn without_sign(self) -> Self;
}

macro_rules! bits {
    ($($int:ty),*) => {$(
        impl FloatBits for $int {
            fn without_sign(self) -> Self {
                self & (<$int>::MAX >> 1)
            }
        }
    )*};
}
bits!(u16, u32, u64);

/// The largest magnitude, as bits. The bits of floating-point numbers are in the order of the
/// numbers; infinity and NaN are larger than all others.
fn largest<T: FloatBits, const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> T) -> T {
    let (values, _) = data.as_chunks::<N>();
    values.iter().fold(T::default(), |most, &bytes| {
        most.max(read(bytes).without_sign())
    })
}

/// A check of all weights of a model in a separate thread. One thread is enough: it reads about as
/// fast as memory allows, and the other cores have work to do.
pub struct FiniteScan {
    thread: Cell<Option<JoinHandle<Vec<String>>>>,
    /// Names of the tensors that contain a value that is not finite.
    found: OnceCell<Vec<String>>,
}

impl FiniteScan {
    /// Starts the check.
    pub fn start(values: Vec<FloatBytes>) -> FiniteScan {
        let look = move || {
            let is_wrong = |values: &FloatBytes| {
                let is_finite = values.are_finite();
                if !values.stays {
                    let_go(values.data);
                }
                !is_finite
            };
            let wrong = values.into_iter().filter(is_wrong);
            wrong.map(|values| values.name).collect()
        };
        FiniteScan {
            thread: Cell::new(Some(thread::spawn(look))),
            found: OnceCell::new(),
        }
    }

    /// Waits until all values were checked.
    ///
    /// # Errors
    /// When a tensor contains a value that is not finite; the message names all such tensors.
    pub fn wait(&self) -> Result<()> {
        let found = self.found.get_or_init(|| {
            let thread = self.thread.take().expect("nobody else waits");
            thread.join().expect("looking at memory does not panic")
        });
        if found.is_empty() {
            return Ok(());
        }
        let mut report = "the weights cannot be used".to_owned();
        list(&mut report, "non-finite", found);
        Err(model(report))
    }
}

/// Adds the problems of one kind to a report. The first few are named.
pub(super) fn list(report: &mut String, kind: &str, problems: &[String]) {
    let _ = write!(report, "\n  {} {kind}:", problems.len());
    for problem in problems.iter().take(LISTED) {
        let _ = write!(report, "\n    {problem}");
    }
    if problems.len() > LISTED {
        let _ = write!(report, "\n    … and {} more", problems.len() - LISTED);
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::bytes;
    use super::*;
    use tch::Tensor;

    /// Whether the scan accepts a value stored as `dtype` as finite in `kind`.
    fn is_taken(dtype: Dtype, bytes: Vec<u8>, kind: Kind) -> bool {
        let values = FloatBytes {
            name: "x".into(),
            dtype,
            kind,
            data: Box::leak(bytes.into_boxed_slice()),
            stays: false,
        };
        FiniteScan::start(vec![values]).wait().is_ok()
    }

    /// The reference is libtorch's own conversion, at the limits of every range.
    #[test]
    fn what_is_finite_is_what_libtorch_makes_finite() {
        let edges = [
            65504.0, 65519.99, 65520.0, 65536.0, 3.3895e38, 3.3953e38, 3.396e38, 3.4028e38,
        ];
        let edges = edges.iter().flat_map(|&x: &f64| [x, -x]);
        let beyond = [
            0.0,
            -0.0,
            1e-45,
            1e39,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        for value in edges.chain(beyond) {
            for (dtype, file) in [
                (Dtype::F64, Kind::Double),
                (Dtype::F32, Kind::Float),
                (Dtype::F16, Kind::Half),
                (Dtype::BF16, Kind::BFloat16),
            ] {
                // Surrounded by ordinary values, so that one bad value is enough and none is
                // overlooked.
                let stored = Tensor::from_slice(&[1.0, value, -2.0]).to_kind(file);
                let bytes = bytes(&stored).expect("numbers have bytes");
                for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
                    let used = stored.to_kind(kind);
                    let expected = used.isfinite().all().int64_value(&[]) == 1;
                    let found = is_taken(dtype, bytes.clone(), kind);
                    assert_eq!(found, expected, "{value:e} of {file:?} as {kind:?}");
                }
            }
        }
    }

    #[test]
    fn the_report_names_what_was_found_and_can_be_asked_for_again() {
        let values = |name: &str, value: f32| FloatBytes {
            name: name.into(),
            dtype: Dtype::F32,
            kind: Kind::Float,
            data: Box::leak(Box::new(value.to_le_bytes())),
            stays: true,
        };
        let scan = FiniteScan::start(vec![values("good", 1.0), values("bad (file)", f32::NAN)]);
        for _ in 0..2 {
            let said = scan.wait().expect_err("one is not finite").to_string();
            assert!(said.contains("1 non-finite:\n    bad (file)"), "{said}");
            assert!(!said.contains("good"), "{said}");
        }
    }
}
