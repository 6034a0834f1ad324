//! What the commands share: the session, the loop over jobs, located models and files, dry runs, and the records of
//! what was drawn.

pub(crate) mod changes;
pub(crate) mod claims;
pub(crate) mod controlnet;
pub(crate) mod draw;
pub(crate) mod drawing_settings;
pub(crate) mod dry_run;
pub(crate) mod found_ip_adapter;
pub(crate) mod guard;
pub(crate) mod image_prompt;
pub(crate) mod jobs;
pub(crate) mod kernel_flags;
pub(crate) mod kernels;
pub(crate) mod located;
pub(crate) mod manifest;
pub(crate) mod order;
pub(crate) mod parameters_text;
pub(crate) mod picture;
pub(crate) mod prepared;
pub(crate) mod preview;
pub(crate) mod session;
pub(crate) mod sheet;
pub(crate) mod stale;
pub(crate) mod toy_words;
