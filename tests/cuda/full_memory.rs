//! Memory that is too small: of the GPU, and of the host that can be pinned.

use crate::comparison::same_pictures;
use crate::gpu::Gpu;

/// Commands that need different parts of the model.
const LINES: [&str; 4] = [
    "generate-base --model toy -p 'a robot' --subject robot --num-images 2 --steps 2 --overwrite -o new",
    "tune robot --target 1 --max-steps 2 --overwrite",
    "sample robot -p '[b] at the beach' --steps 2 --overwrite -o out",
    "evaluate robot/base/00.png robot/base/01.png --model toy",
];

#[test]
fn out_of_memory_anywhere_is_exit_code_4_and_one_line() {
    let Some(gpu) = Gpu::with_actor("full") else {
        return;
    };
    for line in LINES {
        let peak = gpu.counted(line).peak();
        // Ten limits from nothing to a byte below what is needed.
        for tenth in 1..=10 {
            let limit = peak * tenth / 10 - 1;
            let run = gpu
                .with("FAKECUDA_MEMORY", limit)
                .run(&format!("{line} --device cuda"))
                .exits_with(4);
            let errors: Vec<&str> = run
                .stderr
                .lines()
                .filter(|line| line.contains("error"))
                .collect();
            assert_eq!(
                errors.len(),
                1,
                "{line}, {limit} of {peak} bytes: {}",
                run.stderr
            );
            assert!(errors[0].starts_with("error: "), "{}", errors[0]);
            assert!(errors[0].contains("out of memory: "), "{}", errors[0]);
            let names_precision = errors[0].contains("--dtype");
            assert_ne!(
                names_precision,
                line.starts_with("evaluate"),
                "{}",
                errors[0]
            );
        }
        gpu.with("FAKECUDA_MEMORY", peak).on_gpu(line);
    }
}

#[test]
fn a_job_that_does_not_fit_leaves_the_other_jobs_of_its_batch() {
    let Some(gpu) = Gpu::with_actor("full-batch") else {
        return;
    };
    let small = "sample robot -p '[b]' --steps 1 --overwrite -o peak";
    let peak = gpu.counted(small).peak();
    let batch = r#"{"defaults": {"actors": "robot", "prompt": "[b]", "steps": 1}, "jobs": [
        {"output_dir": "a"}, {"output_dir": "b", "width": 512, "height": 512}, {"output_dir": "c"}]}"#;
    std::fs::write(gpu.path("batch.json"), batch).expect("the folder is writable");
    gpu.with("FAKECUDA_MEMORY", peak * 3 / 2)
        .run("sample --config batch.json --device cuda")
        .exits_with(5)
        .says("job 2 of batch.json: out of memory: ");
    same_pictures(&gpu.path("a"), &gpu.path("c"));
}

#[test]
fn without_pinned_memory_the_pictures_are_the_same() {
    let Some(gpu) = Gpu::with_actor("pinned") else {
        return;
    };
    let line = "sample robot -p '[b] at the beach' --steps 2";
    let pinned = gpu.counted(&format!("{line} -o pinned"));
    assert!(pinned.totals["peak_pinned_bytes"] > 0);
    // Pinned memory is refused at once, or for all but the first block.
    for (bytes, out) in [(0, "none"), (100_000, "little")] {
        let refused = gpu.with("FAKECUDA_PINNED", bytes);
        let report = refused.counted(&format!("{line} -o {out}"));
        assert!(report.totals["peak_pinned_bytes"] <= bytes);
        assert!(report.totals["pageable_copies"] > pinned.totals["pageable_copies"]);
        same_pictures(&gpu.path(out), &gpu.path("pinned"));
        refused.on_gpu(&format!("{line} -o offload-{out} --cpu-offload"));
        same_pictures(&gpu.path(&format!("offload-{out}")), &gpu.path("pinned"));
    }
}
