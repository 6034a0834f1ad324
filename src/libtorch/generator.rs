//! libtorch's generator of random numbers, of which the CPU has one for the whole process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor};

/// As long as this lives, what the thread draws comes from its seed alone.
#[must_use = "the generator is free again when this is dropped"]
pub struct Seeded(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

/// The seed below 2³² that draws the same numbers: the generator of the CPU (MT19937) takes 32 bits of a seed.
pub fn seed_in_use(seed: i64) -> u32 {
    seed as u32
}

/// Seeds the generator and keeps it from other threads that seed it, until the answer is dropped. A
/// thread that holds it must not ask again.
pub fn seeded(seed: i64) -> Seeded {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    Seeded(held)
}

/// Noise of a standard normal distribution of this size, from a seed of its own: f32, drawn on the
/// CPU, so that no device changes it.
pub fn noise(seed: i64, size: &[i64]) -> Tensor {
    let _drawing = seeded(seed);
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}
