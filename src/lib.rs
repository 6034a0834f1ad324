//! Consistent characters with SDXL, SD 1.5 and SD 2.1: the paper *OneActor: Consistent Subject Generation via
//! Cluster-Conditioned Guidance* (NeurIPS 2024) on libtorch.
//!
//! `src/README.md` explains the levels of the sources.
#![deny(clippy::print_stdout, clippy::print_stderr, reason = "see `streams`")]

pub mod backbone;
pub mod baselines;
pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod error;
pub mod io;
pub mod libtorch;
pub mod measures;
pub mod method;
pub mod models;
pub(crate) mod pages;
pub mod pictures;
pub(crate) mod progress;
pub mod records;
mod run;
pub mod schedulers;
pub mod signals;
pub mod streams;
pub mod tokenizer;
pub(crate) mod wording;
