//! The port, the method and everything beside them against diffusers, transformers and formulas worked by hand: a file for
//! each subject. The expected values come from `scripts/parity/make_fixtures.py`.

#[path = "../common/mod.rs"]
mod common;

mod bars;
mod baselines;
mod consistory;
mod control;
mod evaluate;
mod experiments;
mod folders;
mod guidance;
mod ip_adapter;
mod jpegs;
mod leftovers;
mod lora;
mod masks;
mod method;
mod models;
mod pictures;
mod pipeline;
mod prompts;
mod sam;
mod schedulers;
mod shortcuts;
mod single_file;
mod tokenizer;
