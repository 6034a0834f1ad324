//! SD 1.5 and 2.1, on the tiny checkpoints of the parity fixtures.

use crate::common::fixture;
use crate::comparison::{TUNED, same_tensors};
use crate::gpu::Gpu;

#[test]
fn sd_15_and_21_do_the_whole_job_as_on_the_cpu() {
    for (shape, word) in [("sd15", "hobbit"), ("sd21", "wizard")] {
        let Some(gpu) = Gpu::new(shape) else { return };
        let model = fixture(shape).display().to_string();
        let base = format!(
            "generate-base --model {model} -p 'a {word}' --subject {word} --num-images 3 --steps 4"
        );
        gpu.draws_the_same("base", &base);
        for (device, run) in [
            ("cpu", Gpu::on_cpu as fn(&Gpu, &str) -> _),
            ("gpu", Gpu::on_gpu),
        ] {
            run(
                &gpu,
                &format!("tune {device}-base --target 1 --max-steps 3 --dtype fp32"),
            );
        }
        let actor = |device: &str| gpu.path(&format!("{device}-base/actor.safetensors"));
        same_tensors(&actor("gpu"), &actor("cpu"), TUNED);
        let sample = "sample cpu-base -p '[b] at the beach' --steps 4 --guided-steps 1-3 --compare";
        gpu.draws_the_same("sample", sample);
        gpu.on_gpu(&format!("{sample} -o half"));
    }
}
