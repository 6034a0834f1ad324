//! The program on a GPU that is simulated (`tests/fakecuda`): every command on `cuda`, compared with
//! the same command on the CPU.
//!
//! `scripts/test.sh` builds the simulated GPU. If the installed libtorch cannot be simulated, each
//! test says so with its name and ends.

#[path = "../common/mod.rs"]
mod common;
mod comparison;
mod counts;
mod devices;
mod drawing;
mod full_memory;
mod gpu;
mod measuring;
mod simulator;
mod stable_diffusion;
mod tuning;
