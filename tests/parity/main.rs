//! The port, the method and the code around them, compared with diffusers, transformers and
//! formulas; one file for each subject. `scripts/parity/make_fixtures.py` writes the expected
//! values.

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
