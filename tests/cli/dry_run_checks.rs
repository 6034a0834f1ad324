//! Problems that can be found before anything is loaded, by a dry run too: outputs that cannot be
//! written, networks that cannot be read, kernels that cannot compute.

use std::fs;
use std::path::{Path, PathBuf};

use oneactor::io::tensors::TensorFile;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::common::fixture;
use crate::common::toy_files::write_controlnet;
use crate::{BASE, Run, copy, folder, folder_with_actor, names, oneactor, program};

/// Runs a line as a dry run and without --dry-run. Both are refused with this code and message,
/// before any network is loaded.
#[track_caller]
fn is_foreseen(folder: &Path, line: &str, code: i32, message: &str) {
    for dry in ["", " --dry-run"] {
        let run = oneactor(folder, &format!("{line}{dry}")).writes_nothing();
        let is_refused = run.code == Some(code) && run.stderr.contains(message);
        assert!(is_refused, "{line}: {:?} {}", run.code, run.stderr);
        assert!(
            !run.stderr.contains(" on the CPU in "),
            "{line}: {}",
            run.stderr
        );
        assert!(
            !run.stderr.contains("internal error"),
            "{line}: {}",
            run.stderr
        );
    }
}

#[test]
fn folders_that_cannot_be_made_are_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("foreseen-folders");
    fs::write(folder.join("file"), "mine").expect("the folder is writable");
    std::os::unix::fs::symlink("nowhere", folder.join("link")).expect("links can be made");
    let story = json!({
        "title": "x", "model": "toy", "characters": {"robot": {"actor": "robot"}},
        "scenes": [{"prompt": "a [robot]"}], "drawing": {"steps": 1},
    });
    fs::write(folder.join("story.json"), story.to_string()).expect("the folder is writable");
    oneactor(&folder, "sample robot -p robot --steps 1 -o out").exits_with(0);
    let long = "x".repeat(300);
    let deep = "y/".repeat(2500);
    let before = names(&folder);
    for (place, why) in [
        ("file", "is a file"),
        ("file/inner", "is a file"),
        ("link", "is a link that leads nowhere"),
        (&*long, "the name is too long"),
        (&*format!("a/{long}/b"), "the name is too long"),
        (&*deep, "the name is too long"),
    ] {
        for line in [
            format!("{BASE} -o {place}"),
            format!("sample robot -p robot -o {place}"),
            format!("story story.json -o {place}"),
            format!("sweep robot -p robot --eta-2 0,1 -o {place}"),
            format!("ablate robot -p robot -o {place}"),
            format!("evaluate out --model toy --report {place}/page.html"),
            format!("evaluate out --model toy --metrics clip_i --masks sam --save-masks {place}"),
            format!("gallery out -o {place}/page.html"),
        ] {
            is_foreseen(&folder, &line, 2, why);
        }
        oneactor(&folder, &format!("man {place}"))
            .exits_with(2)
            .says(why)
            .writes_nothing();
    }
    assert_eq!(names(&folder), before);
    assert_eq!(fs::read(folder.join("file")).expect("it is there"), b"mine");
}

#[test]
fn file_names_that_cannot_be_used_are_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("foreseen-files");
    oneactor(&folder, "sample robot -p robot --steps 1 -o out").exits_with(0);
    for inner in ["sheet/grid.png", "base/base/00.png", "list/manifest.jsonl"] {
        fs::create_dir_all(folder.join(inner)).expect("the folder is writable");
    }
    let sample = "sample robot -p robot --steps 1";
    is_foreseen(
        &folder,
        &format!("{sample} -o sheet"),
        2,
        "sheet/grid.png is a folder",
    );
    is_foreseen(
        &folder,
        &format!("{sample} -o list"),
        2,
        "list/manifest.jsonl is a folder",
    );
    is_foreseen(
        &folder,
        &format!("{BASE} -o base"),
        2,
        "base/base/00.png is a folder",
    );
    let page = format!("{}.html", "x".repeat(250));
    for line in [
        format!("gallery out -o {page}"),
        format!("evaluate out --model toy --report {page}"),
    ] {
        is_foreseen(&folder, &line, 2, "the name is too long");
    }
    fs::remove_file(folder.join("robot/actor.safetensors")).expect("it is there");
    fs::create_dir(folder.join("robot/actor.safetensors")).expect("the folder is writable");
    let tune = "tune robot --target 0 --max-steps 1 --overwrite";
    is_foreseen(&folder, tune, 2, "robot/actor.safetensors is a folder");
    for shard in ["1/2", "2/2"] {
        let line = format!(
            "sample --no-actor --model toy -p robot --num-images 2 --steps 1 -o parts --shard {shard}"
        );
        oneactor(&folder, &line).exits_with(0);
    }
    fs::create_dir(folder.join("parts/grid.png")).expect("the folder is writable");
    is_foreseen(&folder, "merge parts", 2, "parts/grid.png is a folder");
    let lists = names(&folder.join("parts"));
    assert!(
        lists.contains(&"manifest-1-of-2.jsonl".to_owned()),
        "{lists:?}"
    );
    // A page can be written into a folder that does not exist yet.
    oneactor(&folder, "gallery out -o new/er/page.html").exits_with(0);
    assert!(folder.join("new/er/page.html").is_file());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let folder = folder("foreseen-cache");
    fs::write(folder.join("file"), "").expect("the folder is writable");
    let run = program(&folder, ["fetch", "some/model", "--dry-run"])
        .env("HF_HOME", folder.join("file"))
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .output();
    Run::of(run.expect("the program starts"))
        .exits_with(2)
        .says("the cache of the hub, see HF_HOME")
        .says("foreseen-cache/file is a file")
        .writes_nothing();
}

/// A copy of the toy model.
fn model(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy");
    copy(&toy, &model);
    model
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// Rewrites a file without one of its tensors, or with another tensor in its place.
fn change(path: &Path, key: &str, value: Option<&[i64]>) {
    let mut file = TensorFile::read(path).expect("it is whole");
    assert!(file.tensors.remove(key).is_some(), "{key}");
    if let Some(shape) = value {
        file.insert(key, &Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
    }
    fs::write(path, file.to_bytes().expect("floats")).expect("the folder is writable");
}

/// A file, the message expected of it, and the function that damages it.
type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));

#[test]
fn networks_that_cannot_be_read_are_refused_before_the_first_is_loaded() {
    let folder = folder_with_actor("foreseen-networks");
    let model = model(&folder);
    oneactor(
        &folder,
        "sample --no-actor --model ./model -p robot --steps 1 -o done",
    )
    .exits_with(0);
    let lines = [
        BASE.replace("--model toy", "--model ./model") + " -o x",
        "tune robot --model ./model --target 0 --max-steps 1 --overwrite".to_owned(),
        "sample robot --model ./model -p robot --steps 1 -o x".to_owned(),
        "sample --no-actor --model toy --vae ./model -p robot --steps 1 -o x".to_owned(),
        "sweep robot --model ./model -p robot --eta-2 0,1 --steps 1 -o x".to_owned(),
    ];
    let reaches = |line: &str, file: &str| file == VAE || !line.contains("--vae");
    let cut = |path: &Path| {
        let bytes = fs::read(path).expect("it is there");
        fs::write(path, &bytes[..bytes.len() - 7]).expect("the folder is writable");
    };
    let damages: [Damage; 7] = [
        (VAE, "not a whole safetensors file", &cut),
        (UNET, "not a safetensors file", &|path| {
            fs::write(path, "no header").expect("writable")
        }),
        (VAE, "the file is empty", &|path| {
            fs::write(path, "").expect("writable")
        }),
        (VAE, "1 missing", &|path| {
            change(path, "decoder.conv_in.bias", None)
        }),
        (VAE, "1 misshapen", &|path| {
            change(path, "encoder.conv_in.bias", Some(&[3]))
        }),
        (UNET, "conv_out.bias", &|path| {
            change(path, "conv_out.bias", Some(&[5]))
        }),
        ("text_encoder/model.safetensors", "text_encoder", &|path| {
            fs::remove_file(path).expect("there")
        }),
    ];
    for (file, message, damage) in damages {
        let path = model.join(file);
        let whole = fs::read(&path).expect("it is there");
        damage(&path);
        for line in lines.iter().filter(|line| reaches(line, file)) {
            is_foreseen(&folder, line, 3, message);
        }
        // If nothing is left to draw, the networks are not checked.
        let line = "sample --no-actor --model ./model -p robot --steps 1 -o done";
        oneactor(&folder, line).exits_with(0);
        fs::write(&path, whole).expect("the folder is writable");
    }
    assert!(!folder.join("x").exists());
    // All files are intact again.
    oneactor(&folder, &lines[2]).exits_with(0);
}

#[test]
fn loras_and_measuring_networks_that_do_not_fit_are_refused_before_anything_is_loaded() {
    let folder = folder_with_actor("foreseen-beside");
    let mut lora = TensorFile::default();
    let zeros = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    lora.insert(&format!("{layer}.lora_A.weight"), &zeros([2, 5]));
    lora.insert(&format!("{layer}.lora_B.weight"), &zeros([5, 2]));
    let bytes = lora.to_bytes().expect("floats");
    fs::write(folder.join("lora.safetensors"), bytes).expect("the folder is writable");
    let line = "sample robot -p robot --steps 1 -o x --lora lora.safetensors";
    is_foreseen(
        &folder,
        line,
        3,
        "LoRA: 1 tensor cannot be used; the LoRA may be for another model",
    );

    oneactor(&folder, "sample robot -p robot --steps 1 -o out").exits_with(0);
    write_controlnet(&folder, "net", 0.0);
    fs::copy(folder.join("robot/base/00.png"), folder.join("box.png")).expect("it is there");
    let weights = folder.join("net/diffusion_pytorch_model.safetensors");
    change(&weights, "conv_in.bias", None);
    let line = "sample robot -p robot --steps 1 -o x --controlnet ./net --control-image box.png";
    is_foreseen(&folder, line, 3, "conv_in.bias");

    copy(&fixture("evaluate/clip"), &folder.join("clip"));
    let weights = folder.join("clip/model.safetensors");
    change(&weights, "visual_projection.weight", None);
    let line = "evaluate out --clip-model ./clip --metrics clip_i";
    is_foreseen(&folder, line, 3, "visual_projection.weight");
}

#[test]
fn on_a_cpu_flash_supports_every_command_and_missing_kernels_are_refused() {
    let folder = folder_with_actor("foreseen-kernels");
    let lines = [
        "sample robot -p robot --steps 1",
        "sample robot -p robot --steps 1 --subject-masks on",
        "sample robot --method consistory -p robot --steps 1",
    ];
    for (number, line) in lines.iter().enumerate() {
        for dtype in ["fp32", "bf16", "fp16"] {
            let line = format!("{line} --dtype {dtype} -o {number}-{dtype} --attention flash");
            oneactor(&folder, &line).exits_with(0);
        }
        for kernel in ["efficient", "cudnn"] {
            let message =
                format!("--attention: found {kernel}, expected auto, flash or math on a CPU");
            is_foreseen(
                &folder,
                &format!("{line} --attention {kernel} -o x"),
                2,
                &message,
            );
        }
    }
}
