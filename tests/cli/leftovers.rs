//! Tensors that no network reads, and tensors that are missing: what the program says about them,
//! and when.

use oneactor::io::tensors::TensorFile;

use super::common::fixture;
use super::*;

const DRAW: &str =
    "generate-base -p 'a hobbit' --subject hobbit -W 64 -H 64 --num-images 2 --steps 2";

/// The number of notes about unused tensors on stderr.
fn notes(run: &Run) -> usize {
    run.stderr.matches("tensors are not used").count()
}

#[test]
fn one_note_names_what_no_network_reads_also_in_a_dry_run() {
    let folder = folder("leftovers");
    for model in ["sdxl.safetensors", "sd15.safetensors", "folder"] {
        let path = fixture(&format!("leftovers/{model}"));
        let jobs: Vec<_> = [1, 2]
            .map(|seed| serde_json::json!({"seed": seed, "output_dir": format!("{model}-{seed}")}))
            .into();
        let defaults = serde_json::json!({
            "model": path, "prompt": "a hobbit", "subject": "hobbit", "width": 64, "height": 64, "num_images": 2, "steps": 2,
        });
        let batch = serde_json::json!({"defaults": defaults, "jobs": jobs});
        fs::write(folder.join("batch.json"), batch.to_string()).expect("writable");
        for flags in ["--dry-run", ""] {
            let run = oneactor(
                &folder,
                &format!("generate-base --config batch.json {flags}"),
            );
            let run = run
                .exits_with(0)
                .says(&format!("note: {}: ", path.display()));
            assert_eq!(notes(&run), 1, "{}", run.stderr);
        }
    }
    let plain = fixture("single/folder_sd15");
    let run = oneactor(
        &folder,
        &format!("{DRAW} --model {} -o plain", plain.display()),
    );
    assert_eq!(notes(&run.exits_with(0)), 0);
}

#[test]
fn a_dry_run_refuses_a_network_that_lacks_a_tensor() {
    let folder = folder("missing-tensor");
    copy(&fixture("single/folder_sd15"), &folder.join("m"));
    let path = folder.join("m/unet/diffusion_pytorch_model.safetensors");
    let mut file = TensorFile::read(&path).expect("whole");
    assert!(file.tensors.remove("conv_in.bias").is_some());
    fs::write(&path, file.to_bytes().expect("floats")).expect("writable");
    oneactor(&folder, &format!("{DRAW} --model m -o out --dry-run"))
        .exits_with(3)
        .says("1 missing:")
        .says("conv_in.bias");
}
