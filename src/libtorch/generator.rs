//! libtorch's random number generator. The CPU has one generator for the whole process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

/// While this lives, the numbers that this thread draws depend on its seed alone.
#[must_use = "the generator is free again when this is dropped"]
pub struct Seeded(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

/// The seed below 2³² that draws the same numbers: the CPU's generator (MT19937) uses 32 bits of a
/// seed.
pub fn seed_in_use(seed: i64) -> u32 {
    seed as u32
}

/// Seeds the generator and keeps other callers of this function waiting until the result is
/// dropped. A thread that holds the result must not call this function again.
pub fn seeded(seed: i64) -> Seeded {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    Seeded(held)
}

/// Standard normal noise of this size from its own seed: f32, drawn on the CPU, so that it is the
/// same for every device.
pub fn noise(seed: i64, size: &[i64]) -> Tensor {
    let _drawing = seeded(seed);
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}
