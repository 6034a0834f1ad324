//! The baseline IP-Adapter on the toy, which embeds its own adapter and image encoder.

use std::fs;
use std::path::Path;

use oneactor::io::blob::Blob;
use oneactor::io::tensors::TensorFile;
use oneactor::io::toy;
use tch::{Device, Kind, Tensor};

use crate::{BASE, folder, folder_with_actor, json, oneactor, pixels, text};

const SAMPLE: &str = "sample robot --method ip-adapter -p 'a robot in the snow' --steps 3";

/// Writes a file of the embedded toy to disk.
fn write_toy_file(name: &str, to: &Path) {
    let Some(Blob::Embedded { bytes, .. }) = toy::file(name) else {
        panic!("the toy is in the binary");
    };
    fs::create_dir_all(to.parent().expect("a file lies in a folder")).expect("it is writable");
    fs::write(to, bytes).expect("the folder is writable");
}

/// Writes an adapter of zeros, with other key names or widths than the toy's.
fn write_adapter(path: &Path, tensors: &[(&str, &[i64])]) {
    let mut file = TensorFile::default();
    for (name, shape) in tensors {
        file.insert(name, &Tensor::zeros(*shape, (Kind::Float, Device::Cpu)));
    }
    let bytes = file.to_bytes().expect("zeros can be written");
    fs::write(path, bytes).expect("the folder is writable");
}

fn row(folder: &Path, out: &str) -> serde_json::Value {
    let rows = text(&folder.join(out).join("manifest.jsonl"));
    serde_json::from_str(rows.lines().next().expect("a row a picture")).expect("it is JSON")
}

#[test]
fn the_target_of_tune_is_the_image_prompt_and_another_one_makes_another_picture() {
    let folder = folder_with_actor("ip-adapter-target");
    let picture = |out: &str| pixels(&folder.join(out).join("0000-0.png"));
    oneactor(&folder, &format!("{SAMPLE} -o tuned")).exits_with(0);
    oneactor(&folder, &format!("{SAMPLE} --target 1 -o same")).exits_with(0);
    oneactor(&folder, &format!("{SAMPLE} --target 0 -o other")).exits_with(0);
    assert_eq!(picture("tuned"), picture("same"));
    assert_ne!(picture("tuned"), picture("other"));
    let row = row(&folder, "tuned");
    for (key, expected) in [
        ("method", serde_json::json!("ip-adapter")),
        ("target", serde_json::json!(1)),
        ("ip_adapter", serde_json::json!("toy")),
        ("ip_adapter_scale", serde_json::json!(0.6)),
    ] {
        assert_eq!(row[key], expected, "{key}");
    }
    for source in [
        "image_prompt_crc32",
        "ip_adapter_crc32",
        "image_encoder_crc32",
    ] {
        assert_eq!(row[source].as_str().map(str::len), Some(8), "{source}");
    }
}

#[test]
fn the_scale_weighs_the_picture_and_zero_leaves_the_plain_model() {
    let folder = folder_with_actor("ip-adapter-scale");
    let line = format!("{SAMPLE} --compare --ip-adapter-scale");
    oneactor(&folder, &format!("{line} 0 -o none")).exits_with(0);
    oneactor(&folder, &format!("{line} 1 -o whole")).exits_with(0);
    let picture = |out: &str| pixels(&folder.join(out).join("0000-0.png"));
    assert_eq!(picture("none"), picture("none/plain"));
    assert_ne!(picture("whole"), picture("whole/plain"));
    assert_eq!(picture("none/plain"), picture("whole/plain"));
}

#[test]
fn without_tune_the_most_typical_base_image_is_taken_and_named() {
    let folder = folder("ip-adapter-auto");
    oneactor(&folder, &format!("{BASE} -o robot")).exits_with(0);
    let run = oneactor(&folder, &format!("{SAMPLE} -o out"))
        .exits_with(0)
        .says("the target is image ");
    let target = row(&folder, "out")["target"].as_u64().expect("a number");
    assert!(
        run.stderr
            .contains(&format!("image {target}, the most typical of 3"))
    );
    // The chosen target is a recorded setting: naming it finds the finished pictures.
    oneactor(&folder, &format!("{SAMPLE} --target {target} -o out"))
        .exits_with(0)
        .says("1 of 1 images are there already");
}

#[test]
fn a_picture_is_drawn_again_from_itself_alone_and_in_batches() {
    let folder = folder_with_actor("ip-adapter-again");
    let line = format!("{SAMPLE} --target 2 --ip-adapter-scale 0.9 --num-images 2");
    oneactor(&folder, &format!("{line} -o out")).exits_with(0);
    oneactor(&folder, &format!("{line} --batch-size 2 -o batch")).exits_with(0);
    oneactor(&folder, "sample --from out/0001-1.png -o again").exits_with(0);
    let bytes = |name: &str| pixels(&folder.join(name));
    assert_eq!(bytes("out/0001-1.png"), bytes("again/0000-1.png"));
    // A batch may add in another order: at most one level of difference.
    let (alone, batch) = (bytes("out/0001-1.png"), bytes("batch/0001-1.png"));
    assert!(alone.iter().zip(&batch).all(|(a, b)| a.abs_diff(*b) <= 1));
    oneactor(
        &folder,
        "sample --from out/0001-1.png --ip-adapter-scale 0 -o less",
    )
    .exits_with(0);
    assert_ne!(bytes("out/0001-1.png"), bytes("less/0000-1.png"));
}

#[test]
fn a_rerun_with_another_picture_adapter_or_scale_is_refused() {
    let folder = folder_with_actor("ip-adapter-rerun");
    let adapter = folder.join("adapter/ip-adapter.safetensors");
    write_toy_file("ip_adapter/ip-adapter.safetensors", &adapter);
    let line = format!("{SAMPLE} --ip-adapter adapter/ip-adapter.safetensors -o out");
    oneactor(&folder, &line).exits_with(0);
    oneactor(&folder, &line)
        .exits_with(0)
        .says("1 of 1 images are there already");
    oneactor(&folder, &format!("{line} --ip-adapter-scale 1"))
        .exits_with(2)
        .says("ip_adapter_scale: was 0.6, is now 1.0");
    oneactor(&folder, &format!("{line} --target 0"))
        .exits_with(2)
        .says("image_prompt has changed since");
    oneactor(
        &folder,
        "sample robot -p 'a robot in the snow' --steps 3 -o out",
    )
    .exits_with(2)
    .says("method: was \"ip-adapter\", is now none");
    // The file has the same name and other content.
    let mut tensors: Vec<(String, Tensor)> =
        Tensor::read_safetensors(&adapter).expect("it is whole");
    tensors[0].1 = &tensors[0].1 * 0.5;
    let mut file = TensorFile::default();
    for (name, tensor) in &tensors {
        file.insert(name, tensor);
    }
    fs::write(&adapter, file.to_bytes().expect("it was read")).expect("it is writable");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("ip_adapter has changed since");
    fs::copy(
        folder.join("robot/base/00.png"),
        folder.join("robot/base/01.png"),
    )
    .expect("there");
    write_toy_file("ip_adapter/ip-adapter.safetensors", &adapter);
    oneactor(&folder, &line)
        .exits_with(2)
        .says("image_prompt has changed since");
}

#[test]
fn the_users_own_adapter_files_work_like_the_embedded_ones() {
    let folder = folder_with_actor("ip-adapter-files");
    for (name, to) in [
        (
            "ip_adapter/ip-adapter.safetensors",
            "copy/sdxl_models/ip-adapter_sdxl.safetensors",
        ),
        (
            "clip/config.json",
            "copy/sdxl_models/image_encoder/config.json",
        ),
        (
            "clip/model.safetensors",
            "copy/sdxl_models/image_encoder/model.safetensors",
        ),
        (
            "clip/preprocessor_config.json",
            "copy/sdxl_models/image_encoder/preprocessor_config.json",
        ),
    ] {
        write_toy_file(name, &folder.join(to));
    }
    oneactor(&folder, &format!("{SAMPLE} -o toy")).exits_with(0);
    oneactor(&folder, &format!("{SAMPLE} --ip-adapter copy -o copy-out")).exits_with(0);
    let apart = "--ip-adapter copy/sdxl_models/ip-adapter_sdxl.safetensors --image-encoder toy";
    oneactor(&folder, &format!("{SAMPLE} {apart} -o apart")).exits_with(0);
    let picture = |out: &str| pixels(&folder.join(out).join("0000-0.png"));
    assert_eq!(picture("toy"), picture("copy-out"));
    assert_eq!(picture("toy"), picture("apart"));
}

#[test]
fn files_that_cannot_be_an_adapter_for_this_model_are_refused_with_the_reason() {
    let folder = folder_with_actor("ip-adapter-refused");
    let refused = |flags: &str, message: &str| {
        oneactor(&folder, &format!("{SAMPLE} -o out {flags}"))
            .writes_nothing()
            .says(message)
    };
    write_adapter(
        &folder.join("plus.safetensors"),
        &[("image_proj.latents", &[1, 16, 192])],
    );
    refused(
        "--ip-adapter plus.safetensors",
        "only the plain IP-Adapter is supported",
    )
    .exits_with(3);
    write_adapter(&folder.join("no.safetensors"), &[("a", &[1])]);
    refused(
        "--ip-adapter no.safetensors",
        "found no image_proj.proj.weight",
    )
    .exits_with(3);
    let of = |rows, reads| [rows, reads];
    for (name, shape, message) in [
        (
            "wide",
            of(4 * 2048, 1280),
            "its tokens have width 2048, expected 192 for the model toy",
        ),
        (
            "eyes",
            of(4 * 192, 1280),
            "needs image embeddings of width 1280, but those of the image encoder toy have width 128",
        ),
    ] {
        let file = format!("{name}.safetensors");
        write_adapter(&folder.join(&file), &[("image_proj.proj.weight", &shape)]);
        refused(&format!("--ip-adapter {file}"), message).exits_with(2);
    }
    write_adapter(
        &folder.join("torn.safetensors"),
        &[("image_proj.proj.weight", &[768, 128])],
    );
    refused(
        "--ip-adapter torn.safetensors",
        "ip_adapter.1.to_k_ip.weight",
    )
    .exits_with(3);
    refused(
        "--ip-adapter nowhere/at/all",
        "the IP-Adapter: there is no file or folder nowhere/at/all",
    )
    .exits_with(3);
    refused("--ip-adapter robot", "expected a copy of h94/IP-Adapter").exits_with(2);
    refused("--ip-adapter h94/IP-Adapter", "h94/IP-Adapter").exits_with(3);
    refused("--image-encoder robot", "the image encoder: robot is not a").exits_with(3);
    fs::write(folder.join("adapter.bin"), "pickle").expect("the folder is writable");
    refused("--ip-adapter adapter.bin", "expected a .safetensors file").exits_with(2);
    refused("--target 3", "--target: found 3, expected 0 to 2").exits_with(2);
    refused("--ip-adapter-scale -1", "--ip-adapter-scale: found -1").exits_with(2);
    fs::remove_file(folder.join("robot/base/01.png")).expect("it is there");
    refused("", "the image prompt").exits_with(2);
}

#[test]
fn flags_of_ip_adapter_are_refused_with_other_methods() {
    let folder = folder_with_actor("ip-adapter-alone");
    for flag in [
        "--ip-adapter toy",
        "--image-encoder toy",
        "--ip-adapter-scale 1",
    ] {
        let name = flag.split(' ').next().expect("a flag");
        oneactor(&folder, &format!("sample robot -p 'a robot' -o out {flag}"))
            .exits_with(2)
            .says(&format!("{name} is only for --method ip-adapter"));
    }
    let line = format!("{SAMPLE} --eta-2 0 -o out");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("--eta-2 is only for --method oneactor");
}

#[test]
fn a_photo_that_tune_had_as_target_is_not_an_image_prompt() {
    let folder = folder_with_actor("ip-adapter-photo");
    let path = folder.join("robot/tune.json");
    let mut tuned = json(&path);
    tuned["parameters"]["target_image_crc32"] = serde_json::json!("00000000");
    tuned["target_image"] = serde_json::json!("me.jpg");
    fs::write(&path, tuned.to_string()).expect("the folder is writable");
    oneactor(&folder, &format!("{SAMPLE} -o out"))
        .exits_with(2)
        .says("tune was run with the photo \"me.jpg\" as target");
    oneactor(&folder, &format!("{SAMPLE} --target 0 -o out")).exits_with(0);
}
