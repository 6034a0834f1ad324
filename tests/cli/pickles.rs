//! Reading a pickled file runs code. The program unpickles no file, whichever flag names it.

use std::fs;
use std::path::Path;

use crate::{folder, folder_with_actor, names, oneactor};

/// A pickle whose reading creates the file `pickled`: `os.system("touch pickled")`.
const PICKLE: &[u8] = b"cos\nsystem\n(S'touch pickled'\ntR.";

/// Every flag that names a file of weights, in a command that reaches that file; FILE is replaced
/// by the file's name.
const LINES: [&str; 15] = [
    "generate-base --model FILE -p 'a robot' --subject robot -o out",
    "generate-base --model toy --vae FILE -p 'a robot' --subject robot -o out",
    "generate-base --model toy --lora FILE -p 'a robot' --subject robot -o out",
    "generate-base --model toy --lora FILE:0.5 -p 'a robot' --subject robot -o out",
    "generate-base --model toy --controlnet FILE --control-image robot/base/00.png -p 'a robot' --subject robot -o out",
    "sample FILE -p 'a [b]' -o out",
    "sample robot -p 'a [b]' --offsets FILE -o out",
    "sample robot --method ip-adapter -p 'a [b]' --ip-adapter FILE -o out",
    "sample robot --method ip-adapter -p 'a [b]' --image-encoder FILE -o out",
    "evaluate robot/base/00.png --clip-model FILE --metrics clip_t -p 'a robot'",
    "evaluate robot/base/00.png robot/base/01.png --dino-model FILE --metrics dino",
    "evaluate robot/base/00.png robot/base/01.png --lpips-model FILE --metrics lpips",
    "evaluate robot/base/00.png robot/base/01.png --metrics clip_i --clip-model toy --masks sam --sam-model FILE",
    "inspect FILE",
    "inspect robot/base/00.png FILE",
];

#[test]
fn a_pickled_file_is_refused_by_name_whatever_flag_names_it() {
    let folder = folder_with_actor("pickles");
    for ending in ["bin", "ckpt", "pt", "pth", "pkl", "pickle", "PT"] {
        let file = format!("evil.{ending}");
        fs::write(folder.join(&file), PICKLE).expect("the folder is writable");
        let before = names(&folder);
        for line in LINES {
            let run = oneactor(&folder, &line.replace("FILE", &file));
            assert!(matches!(run.code, Some(2 | 3)), "{line}: {}", run.stderr);
            assert!(
                run.stderr.contains("pickled") && run.stderr.contains(&file),
                "{line}: {}",
                run.stderr
            );
            assert_eq!(names(&folder), before, "{line}");
        }
        fs::remove_file(folder.join(&file)).expect("it was there");
    }
}

#[test]
fn a_pickle_under_another_name_is_no_safetensors_file() {
    let folder = folder_with_actor("pickles-renamed");
    fs::write(folder.join("evil.safetensors"), PICKLE).expect("the folder is writable");
    let before = names(&folder);
    for line in LINES {
        let run = oneactor(&folder, &line.replace("FILE", "evil.safetensors"));
        assert!(matches!(run.code, Some(2 | 3)), "{line}: {}", run.stderr);
        assert!(
            run.stderr.contains("evil.safetensors"),
            "{line}: {}",
            run.stderr
        );
        assert_eq!(names(&folder), before, "{line}");
    }
}

#[test]
fn a_folder_that_has_only_pickled_weights_is_refused() {
    let folder = folder("pickles-folder");
    fs::create_dir_all(folder.join("encoder")).expect("the folder is writable");
    fs::write(
        folder.join("encoder/config.json"),
        r#"{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "image_size": 8, "patch_size": 4, "layer_norm_eps": 1e-6}"#,
    )
    .expect("the folder is writable");
    fs::write(
        folder.join("encoder/preprocessor_config.json"),
        r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}"#,
    )
    .expect("the folder is writable");
    fs::write(folder.join("encoder/pytorch_model.bin"), PICKLE).expect("it is writable");
    image::RgbImage::new(64, 64)
        .save(folder.join("a.png"))
        .expect("it is writable");
    image::RgbImage::new(64, 60)
        .save(folder.join("b.png"))
        .expect("it is writable");
    oneactor(
        &folder,
        "evaluate a.png b.png --metrics dino --dino-model encoder",
    )
    .exits_with(3)
    .says("only pickled (pytorch_model.bin)")
    .writes_nothing();
    assert!(!folder.join("pickled").exists());
}

/// Functions of libtorch and of crates that unpickle.
const UNPICKLE: [&str; 8] = [
    "Tensor::load(",
    "Tensor::load_multi",
    "Tensor::loadz",
    "load_from_stream",
    "read_npz",
    "CModule",
    "VarStore",
    "torch::load",
];

#[test]
fn nothing_in_the_sources_and_no_dependency_unpickles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src")];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the sources are readable") {
            let path = entry.expect("the sources are readable").path();
            let ending = path.extension().unwrap_or_default();
            if path.is_dir() {
                open.push(path);
            } else if ending == "rs" || ending == "cpp" {
                let text = fs::read_to_string(&path).expect("the sources are UTF-8");
                for part in UNPICKLE {
                    assert!(!text.contains(part), "{}: {part}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "the sources were found");
    let locked = fs::read_to_string(root.join("Cargo.lock")).expect("it is part of the project");
    assert!(locked.contains("name = \"safetensors\""));
    let mut names = locked.lines().filter(|line| line.starts_with("name = "));
    assert!(
        !names.any(|name| name.contains("pickle")),
        "a crate for pickles"
    );
}
