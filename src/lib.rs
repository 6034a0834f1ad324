//! Consistent characters with SDXL, SD 1.5 and SD 2.1: the paper *OneActor: Consistent Subject Generation via
//! Cluster-Conditioned Guidance* (NeurIPS 2024) on libtorch.
//!
//! The layers, from the bottom: [`io`], [`pictures`], [`device`] and [`libtorch`]; [`models`], [`schedulers`] and
//! [`tokenizer`]; the frozen backbone [`backbone`]; the method of the paper [`method`] and its
//! [`measures`], and the [`baselines`] it is compared with; above them the flags, the batch files and
//! the [`records`] on disk, what the commands share in `run`, and one file per command.
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
