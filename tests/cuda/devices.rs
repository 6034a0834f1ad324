//! Which GPU is used, and what is said about it.

use crate::comparison::same_pictures;
use crate::gpu::{Gpu, Report};

const SAMPLE: &str = "sample robot -p '[b] at the beach' --steps 2";

#[test]
fn the_second_gpu_does_all_of_the_work_and_the_first_none() {
    let Some(gpu) = Gpu::with_actor("second") else {
        return;
    };
    let two = gpu.with("FAKECUDA_DEVICES", 2);
    two.on_gpu(&format!("{SAMPLE} -o first"));
    let report = gpu.path("report.json");
    let counted = two.with("FAKECUDA_REPORT", report.display());
    for (line, out) in [
        (SAMPLE, "-o second"),
        ("tune robot --target 1 --max-steps 2 --overwrite", ""),
        ("evaluate robot/base/00.png --model toy", ""),
    ] {
        counted
            .run(&format!("{line} {out} --device cuda:1"))
            .exits_with(0);
        let memory = Report::read(&report).memory;
        assert_eq!(memory.len(), 2);
        assert_eq!(memory[0]["peak_bytes"], 0, "{line} uses the first GPU");
        assert!(memory[1]["peak_bytes"] > 0, "{line}");
    }
    same_pictures(&gpu.path("second"), &gpu.path("first"));
}

#[test]
fn a_gpu_that_does_not_exist_is_refused_with_those_that_do() {
    let Some(gpu) = Gpu::new("no-such-gpu") else {
        return;
    };
    let line = "sample --no-actor --model toy -p robot -o x --device";
    for (count, device, message) in [
        (0, "cuda", "libtorch finds no GPU on this machine"),
        (
            1,
            "cuda:1",
            "this machine has 1 GPU, expected cuda or cuda:0",
        ),
        (
            2,
            "cuda:2",
            "this machine has 2 GPUs, expected cuda:0 to cuda:1",
        ),
    ] {
        gpu.with("FAKECUDA_DEVICES", count)
            .run(&format!("{line} {device}"))
            .exits_with(4)
            .says(message)
            .writes_nothing();
    }
    // Without a GPU, `auto` is the CPU; with one, it is the GPU.
    let report = gpu.path("report.json");
    for (count, out) in [(0, "cpu"), (1, "gpu")] {
        gpu.with("FAKECUDA_DEVICES", count)
            .with("FAKECUDA_REPORT", report.display())
            .run(&format!(
                "sample --no-actor --model toy -p robot --steps 1 -o {out} --device auto"
            ))
            .exits_with(0);
        let launches = Report::read(&report).totals["launches"];
        assert_eq!(launches > 0, count > 0, "{launches} launches");
    }
}

#[test]
fn doctor_says_that_the_gpu_is_simulated() {
    let Some(gpu) = Gpu::new("doctor") else {
        return;
    };
    let says = "simulated gpu                 yes: the kernels run on the CPU";
    let found = gpu
        .with("FAKECUDA_DEVICES", 2)
        .run("doctor")
        .exits_with(0)
        .stdout;
    for line in [
        says,
        "cuda available                yes",
        "gpus                          2",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    let found = gpu.on_cpu("doctor").stdout;
    assert!(!found.contains("simulated"), "{found}");
}
