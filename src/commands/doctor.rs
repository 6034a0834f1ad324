//! `doctor`: versions, devices, cache and token state.

use anyhow::Result;
use serde_json::{Map, Value};
use tch::{Cuda, Device};

use crate::cli::{DoctorFlags, Format};
use crate::io::hub::HubSettings;
use crate::libtorch::{self, AttentionImplementation, driver};
use crate::streams;

/// Prints the report.
///
/// # Errors
/// Never; problems are lines of the report.
pub fn run(flags: &DoctorFlags) -> Result<()> {
    let lines = report();
    let text = match flags.format {
        Format::Text => {
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let lines = lines
                .iter()
                .map(|(name, value)| format!("{name:width$}  {value}\n"));
            lines.collect::<String>()
        }
        Format::Json => {
            let object: Map<String, Value> = lines
                .into_iter()
                .map(|(name, value)| (name.replace(' ', "_"), value.into()))
                .collect();
            format!("{}\n", Value::Object(object))
        }
    };
    streams::print(text);
    Ok(())
}

fn report() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut add = |name: &str, value: String| lines.push((name.to_owned(), value));
    let yes_or_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    add("oneactor", env!("CARGO_PKG_VERSION").to_owned());
    add(
        "libtorch",
        libtorch::mapped("libtorch_cpu").unwrap_or_else(|| "linked statically".to_owned()),
    );
    let cuda = libtorch::mapped("libtorch_cuda");
    add(
        "cuda linked",
        match cuda {
            Some(path) => format!("yes, {path}"),
            None => yes_or_no(tch::utils::has_cuda()),
        },
    );
    add(
        "cuda version",
        driver::cuda_version().map_or("none".to_owned(), |(major, minor)| {
            format!("{major}.{minor}")
        }),
    );
    let found = driver::found().unwrap_or_else(|| "none".to_owned());
    add("nvidia driver", driver::shortage().unwrap_or(found));
    add("cuda available", yes_or_no(Cuda::is_available()));
    add("gpus", Cuda::device_count().to_string());
    if libtorch::has_simulated_gpu() {
        add(
            "simulated gpu",
            "yes: the kernels run on the CPU, for this project's own tests".to_owned(),
        );
    }
    add("cudnn available", yes_or_no(Cuda::cudnn_is_available()));
    add("cpu threads", tch::get_num_threads().to_string());
    for (name, value) in kernels() {
        add(name, value);
    }
    match HubSettings::from_env(false) {
        Ok(settings) => {
            for (name, value) in settings.describe() {
                add(&format!("hub {name}"), value);
            }
        }
        Err(error) => add("hub", format!("{error:#}")),
    }
    lines
}

/// The settings of libtorch that only the shim can read, with their values at the start of every run.
fn kernels() -> Vec<(&'static str, String)> {
    if !libtorch::has_shim() {
        let without = "no: --tf32 and --attention are refused, the peak of GPU memory is not known, \
                       and computing on a CPU and loading onto a GPU are slower; \
                       build with the cargo feature \"shim\" and libtorch's headers";
        return vec![("shim", without.to_owned())];
    }
    let shown = |value: Result<String>| value.unwrap_or_else(|error| format!("{error:#}"));
    let tf32 = libtorch::tf32().map(|tf32| match (tf32.products, tf32.convolutions) {
        (true, true) => "everywhere".to_owned(),
        (false, true) => "in convolutions".to_owned(),
        (true, false) => "in products of matrices".to_owned(),
        (false, false) => "nowhere".to_owned(),
    });
    let attention = libtorch::attention().map(|kernels| {
        let names: Vec<&str> = kernels
            .into_iter()
            .map(AttentionImplementation::name)
            .collect();
        names.join(", ")
    });
    let grows = if tch::Cuda::is_available() {
        libtorch::prepare_allocator(Device::Cuda(0))
            .and_then(|()| libtorch::has_expandable_segments())
            .map(|grows| if grows { "yes" } else { "no" }.to_owned())
    } else {
        Ok("no gpu".to_owned())
    };
    vec![
        ("shim", "yes".to_owned()),
        ("tf32 on a gpu", shown(tf32)),
        ("attention kernels", shown(attention)),
        ("gpu memory in growing blocks", shown(grows)),
    ]
}
