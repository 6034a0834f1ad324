//! Files written by this program that now hold NaN, or values other than the program wrote.

use std::fs;
use std::path::Path;

use oneactor::io::tensors::TensorFile;

use crate::{folder_with_actor, oneactor};

/// Replaces the values of one tensor by NaN.
fn spoil(path: &Path, tensor: &str) {
    let mut file = TensorFile::read(path).expect("it was written");
    let spoilt = file.tensors[tensor].full_like(f64::NAN);
    file.insert(tensor, &spoilt);
    fs::write(path, file.to_bytes().expect("its kinds are known")).expect("the folder is ours");
}

#[test]
fn a_value_that_is_not_finite_is_found_before_anything_is_drawn() {
    let folder = folder_with_actor("damaged-values");
    for (file, tensor, line) in [
        (
            "actor.safetensors",
            "encoder_features",
            "sample robot -p '[b]' --steps 1 -o out",
        ),
        (
            "base.safetensors",
            "latents",
            "tune robot --target 1 --max-steps 1 --overwrite",
        ),
    ] {
        spoil(&folder.join("robot").join(file), tensor);
        let run = oneactor(&folder, line).exits_with(2);
        assert!(!run.stderr.contains("loading"), "{}", run.stderr);
        run.says(&format!(
            "robot/{file}: tensor {tensor} holds a value that is not finite (NaN or infinite): the file is damaged, make it again"
        ))
        .writes_nothing();
    }
}

#[test]
fn tuning_warns_that_a_replaced_base_picture_is_not_what_it_learns() {
    let folder = folder_with_actor("damaged-base-picture");
    let base = folder.join("robot/base");
    let line = "tune robot --target 1 --max-steps 1 --overwrite";
    let warned = "robot: base/01.png has changed since generate-base, which has no effect, because tune learns the latents in base.safetensors";
    let run = oneactor(&folder, line).exits_with(0);
    assert!(
        !run.stderr.contains("changed since generate-base"),
        "{}",
        run.stderr
    );
    fs::copy(base.join("02.png"), base.join("01.png")).expect("the folder is ours");
    oneactor(&folder, line).exits_with(0).says(warned);
    // A missing picture gives no warning: tuning reads the latents, not the pictures.
    fs::remove_file(base.join("01.png")).expect("it was there");
    let run = oneactor(&folder, line).exits_with(0);
    assert!(
        !run.stderr.contains("changed since generate-base"),
        "{}",
        run.stderr
    );
}
