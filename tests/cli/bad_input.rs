//! Bad input is refused with the value found, the values expected and the exit code of its kind;
//! nothing is written.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use oneactor::io::tensors::TensorFile;
use tch::{Device, Kind, Tensor};

use crate::{BASE, Run, copy, folder, folder_with_actor, names, oneactor, program};

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    let folder = folder("ranges");
    let cases = [
        (
            "--steps 0",
            "--steps: found 0, expected a whole number from 1 to 1000",
        ),
        ("--width 63", "--width: found 63, expected a multiple of 8"),
        ("-H -64", "--height: found -64, expected a multiple of 8"),
        (
            "--num-images -3",
            "--num-images: found -3, expected a whole number from 2 to 1000",
        ),
        (
            "--seed -1",
            "--seed: found -1, expected a whole number from 0",
        ),
        (
            "--guidance-scale nan",
            "--guidance-scale: found NaN, expected a number from 0 to 100",
        ),
        (
            "--cfg-scale -1",
            "--guidance-scale: found -1, expected a number from 0 to 100",
        ),
        (
            "--batch-size 0",
            "--batch-size: found 0, expected a whole number from 1",
        ),
        (
            "--scheduler heun",
            "--scheduler: found \"heun\", expected one of euler, dpm++2m, ddim, pndm, or its name in another program: \
             `oneactor --help` has a table",
        ),
        (
            "--guidance-scale abc",
            "invalid value 'abc' for '--guidance-scale <SCALE>': expected a number from 0 to 100",
        ),
        (
            "--steps 1.5",
            "invalid value '1.5' for '--steps <N>': expected a whole number from 1 to 1000",
        ),
        ("--seed 1.5", "expected a whole number\n"),
        (
            "--guidence-scale 4",
            "unexpected argument '--guidence-scale' found\n\n  tip: a similar argument exists: '--guidance-scale'\n",
        ),
        (
            "--device gpu",
            "--device: found \"gpu\", expected auto, cpu, cuda or cuda:N",
        ),
    ];
    for (flags, message) in cases {
        let base = "generate-base --model toy -p 'a robot' --subject robot -o robot";
        oneactor(&folder, &format!("{base} {flags}"))
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(names(&folder).is_empty());
}

#[test]
fn values_of_tune_and_sample_are_refused_with_the_range() {
    let folder = folder_with_actor("ranges-of-actor");
    let cases = [
        (
            "tune robot --overwrite --target 3",
            "--target: found 3, expected 0 to 2",
        ),
        (
            "tune robot --overwrite --target best",
            "expected the number of a base image or \"auto\"",
        ),
        (
            "tune robot --overwrite --num-auxiliary 3",
            "--num-auxiliary: found 3, expected at most 2",
        ),
        (
            "tune robot --overwrite --lambda-1 -1",
            "--lambda-1: found -1, expected a number from 0",
        ),
        (
            "tune robot --overwrite --learning-rate 0",
            "--learning-rate: found 0, expected a number from 1e-9 to 1",
        ),
        (
            "tune robot -o x",
            "error: tune writes into its folder DIR and has no -o: leave it out; to keep two actors, copy the folder\n",
        ),
        (
            "evaluate robot -o x",
            "error: unexpected argument '-o' found\n\nUsage: ",
        ),
        (
            "sweep robot -p [b] --semantic-scale 0..1",
            "expected a number from -10 to 10, or several with commas between them, for instance 0,0.4,0.8",
        ),
        (
            "sample robot -p [b] --guided-steps 5-40",
            "found \"5-40\", expected the first and the last step, from 1 to 30, for instance 1-20",
        ),
        (
            "sample robot -p [b] --guided-steps 1..3 --steps 4",
            "found \"1..3\", expected the first and the last step, from 1 to 4, for instance 1-3",
        ),
        (
            "sample robot -p [b] --vae-tile-size 64",
            "--vae-tile-size has no effect without --vae-tiling: add --vae-tiling, or leave --vae-tile-size out",
        ),
        (
            "sample robot -p [b] --eta-2 -1",
            "--eta-2: found -1, expected a number from 0 to 200",
        ),
        (
            "sample robot -p [b] --num-images 0",
            "--num-images: found 0, expected",
        ),
        ("sample robot", "--prompt or --prompts-file is missing"),
        ("sample robot -p ''", "prompt 1 is empty"),
        ("sample -p [b]", "an actor is missing"),
        (
            "sample robot robot -p 'a robot' -o x",
            "base words that cannot be told apart in a prompt, \"robot\" and \"robot\"",
        ),
        (
            "sample robot robot -p 'a robot'",
            "--output-dir is missing: with several actors",
        ),
        (
            "sample robot -p [b] --save-masks",
            "--save-masks: a single actor acts on the whole picture and has no mask",
        ),
        (
            "sample robot -p [b] --no-actor --compare",
            "--compare draws with and without the actor, so it cannot be used with --no-actor",
        ),
    ];
    for (line, message) in cases {
        oneactor(&folder, line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("robot/samples").exists());
}

#[test]
fn a_prompt_without_the_base_word_is_refused_by_name() {
    let folder = folder_with_actor("word");
    let cases = [
        "generate-base --model toy -p 'a cat' --subject robot -o x",
        "generate-base --model toy -p 'many robotics' --subject robot -o x",
        "sample robot -p 'a robot' -p 'a cat' -o x",
        "sample robot -p 'robotics' -o x",
    ];
    for line in cases {
        let run = oneactor(&folder, line).exits_with(2).writes_nothing();
        assert!(run.stderr.contains("\"robot\""), "{}", run.stderr);
        let names_prompt = run.stderr.contains("\"a cat\"") || run.stderr.contains("robotics\"");
        assert!(names_prompt, "{}", run.stderr);
        assert!(
            !run.stderr.contains("loading"),
            "refused before anything is loaded"
        );
    }
}

#[test]
fn a_base_word_after_the_token_limit_is_refused_and_a_cut_end_is_reported() {
    let folder = folder("limit");
    let long = "red ".repeat(80);
    let line = format!("generate-base --model toy --subject robot -o x -p '{long} robot'");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("comes after the limit of 32 tokens");
    let line = format!("{BASE} -o x --dry-run -p 'a robot, {long}'").replace("-p 'a robot' ", "");
    oneactor(&folder, &line)
        .exits_with(2)
        .says("will not see the end of this one")
        .says("1 of 1 prompt would be cut");
}

#[test]
fn prompt_files_that_hold_no_usable_text_are_refused() {
    let folder = folder_with_actor("prompt-files");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).expect("the folder is writable");
    };
    write("empty.txt", b"\n \n");
    write("latin.txt", b"a robot\na caf\xe9 robot\n");
    write("huge.txt", &vec![b'a'; (1 << 20) + 1]);
    let cases = [
        ("empty.txt", "empty.txt contains no prompt"),
        (
            "latin.txt",
            "latin.txt: line 2: found bytes that are not UTF-8",
        ),
        ("huge.txt", "huge.txt is larger than 1 MiB"),
        (
            "none.txt",
            "--prompts-file: there is no file none.txt, expected a text file with one prompt per line: check the path; \
             a relative path starts at the folder in which the program is started",
        ),
    ];
    for (name, message) in cases {
        let line = format!("sample robot --prompts-file {name} -o x");
        oneactor(&folder, &line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
}

#[test]
fn prompts_come_from_standard_input_too() {
    let folder = folder_with_actor("stdin");
    let arguments = "sample robot --prompts-file - -o x --steps 2 --dry-run".split(' ');
    let mut child = program(&folder, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin
        .write_all(b"a robot\n[b] in the snow\n")
        .expect("the program reads");
    drop(stdin);
    let run = Run::of(child.wait_with_output().expect("the program ends")).exits_with(0);
    assert_eq!(run.paths()[..2], ["x/0000-0.png", "x/0001-1.png"]);
}

#[test]
fn missing_folders_and_files_are_named_with_what_to_do() {
    let folder = folder_with_actor("missing-files");
    fs::create_dir(folder.join("empty")).expect("the folder is writable");
    fs::write(folder.join("text.png"), "hello").expect("the folder is writable");
    fs::write(folder.join("bad.safetensors"), "hello").expect("the folder is writable");
    fs::write(folder.join("story.json"), r#"{"title": "x", "scenes": []}"#).expect("writable");
    fs::write(
        folder.join("batch.json"),
        r#"{"jobs": [{"guidence_scale": 4}]}"#,
    )
    .expect("writable");
    let cases = [
        (
            "tune nowhere",
            "there is no base set nowhere/base.safetensors: run `oneactor generate-base",
        ),
        (
            "sample nowhere -p [b]",
            "there is no folder or file nowhere, expected an actor: give the folder in which tune made one, or its \
             actor.safetensors",
        ),
        (
            "sample nowhere -p [b] --method consistory",
            "there is no folder or file nowhere, expected the folder of a subject: give the folder with its base images",
        ),
        (
            "sample robot/grid.png -p [b]",
            "the actor robot/grid.png: not a safetensors file (found a PNG picture): check the path",
        ),
        (
            "sample empty -p [b]",
            "there is no actor empty/actor.safetensors: run `oneactor tune empty`",
        ),
        (
            "sample bad.safetensors -p [b]",
            "bad.safetensors: not a whole safetensors file",
        ),
        (
            "sample robot/base.safetensors -p [b]",
            "found oneactor.base/v1, expected oneactor.actor/v1",
        ),
        (
            "sample robot -p [b] --offsets none.safetensors",
            "there is no file none.safetensors",
        ),
        ("sample --from text.png", "text.png"),
        (
            "sample --from robot/grid.png",
            "robot/grid.png does not record how it was drawn, expected a single picture by this program: sheets such \
             as grid.png have no record",
        ),
        (
            "sample --from none.png",
            "there is no file none.png, expected a PNG that this program wrote: check the path",
        ),
        (
            "tune robot --overwrite --target-image none.png",
            "there is no file none.png, expected a PNG or JPEG: check the path",
        ),
        (
            "sample robot -p [b] --config none.json",
            "there is no file none.json, expected a batch file: check the path",
        ),
        (
            "sample robot -p [b] --config story.json",
            "this is a story file (it has the key `scenes`), expected a batch file: give it to `oneactor story`",
        ),
        (
            "story batch.json -o x",
            "this is a batch file (it has the key `jobs`), expected a story: give it to its command with --config",
        ),
        (
            "sample robot -p [b] --config batch.json",
            "unknown key `guidence_scale`, did you mean `guidance_scale`?",
        ),
    ];
    for (line, message) in cases {
        oneactor(&folder, line)
            .exits_with(2)
            .says(message)
            .writes_nothing();
    }
}

#[test]
fn a_missing_model_is_exit_code_3() {
    let folder = folder("model");
    let base = BASE.replace("--model toy ", "");
    for (model, message) in [
        ("nowhere", "`nowhere` is not a folder here"),
        ("./nowhere", "there is no file or folder ./nowhere"),
        ("nobody/nothing", "nobody/nothing"),
    ] {
        let line = format!("{base} -o x --model {model} --offline");
        oneactor(&folder, &line)
            .exits_with(3)
            .says(message)
            .writes_nothing();
    }
    assert!(!folder.join("x").exists());
}

#[test]
fn a_model_with_one_value_that_is_not_finite_draws_nothing() {
    let folder = folder("not-finite");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/toy"),
        &folder.join("model"),
    );
    // Every step reads the U-Net. No drawn picture reads the encoder of the VAE.
    for (file, key) in [
        ("unet/diffusion_pytorch_model.safetensors", "conv_out.bias"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            "encoder.conv_in.bias",
        ),
    ] {
        let path = folder.join("model").join(file);
        let whole = fs::read(&path).expect("it was copied");
        let tensors = TensorFile::read(&path).expect("it is readable");
        let _ = tensors.tensors[key].get(1).fill_(f64::INFINITY);
        fs::write(&path, tensors.to_bytes().expect("floats")).expect("the folder is writable");
        let base = BASE.replace("--model toy", "--model ./model");
        oneactor(&folder, &format!("{base} -o x"))
            .exits_with(3)
            .says("1 non-finite")
            .says(key)
            .says(file)
            .writes_nothing();
        assert!(!folder.join("x/base").exists() || names(&folder.join("x/base")).is_empty());
        fs::write(&path, whole).expect("the folder is writable");
    }
}

#[test]
fn a_missing_gpu_is_exit_code_4() {
    if tch::Cuda::is_available() {
        return;
    }
    let folder = folder("gpu");
    oneactor(&folder, &format!("{BASE} -o x --device cuda"))
        .exits_with(4)
        .says("Use the device cpu")
        .writes_nothing();
}

#[test]
fn an_actor_of_another_model_is_refused_with_both_names() {
    let folder = folder_with_actor("other-model");
    // The same actor, with metadata that name a model of other weights.
    let path = folder.join("robot/actor.safetensors");
    let mut actor = TensorFile::read(&path).expect("it is readable");
    actor
        .metadata
        .insert("model".into(), "somebody/other".into());
    actor
        .metadata
        .insert("model_fingerprint".into(), "00000000".into());
    fs::write(&path, actor.to_bytes().expect("it can be written")).expect("the folder is writable");
    oneactor(&folder, "sample robot -p [b] --model toy -o x")
        .exits_with(2)
        .says("somebody/other")
        .says("but this run uses toy")
        .writes_nothing();
}

#[test]
fn offsets_that_do_not_fit_are_refused() {
    let folder = folder_with_actor("offsets");
    let path = folder.join("offsets.safetensors");
    let write = |shape: &[i64], value: f64| {
        let mut file = TensorFile::default();
        let offset = Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        file.insert("target_offset", &offset);
        file.insert("average_offset", &offset);
        fs::write(&path, file.to_bytes().expect("it can be written"))
            .expect("the folder is writable");
    };
    let line = "sample robot -p [b] --steps 2 -o x --offsets offsets.safetensors";
    write(&[192], 0.0);
    oneactor(&folder, line)
        .exits_with(2)
        .says("expected [W, D]");
    write(&[1, 192], f64::NAN);
    oneactor(&folder, line).exits_with(2).says("not finite");
    write(&[1, 7], 0.0);
    oneactor(&folder, line).exits_with(2).says("does not fit");
    assert!(!folder.join("x").exists() || names(&folder.join("x")).is_empty());
    write(&[1, 192], 0.0);
    oneactor(&folder, line).exits_with(0);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = folder("not-writable");
    fs::write(folder.join("file"), "").expect("the folder is writable");
    oneactor(&folder, &format!("{BASE} -o file/robot"))
        .exits_with(2)
        .says("file/robot")
        .writes_nothing();
}

#[test]
fn unknown_flags_and_commands_are_exit_code_2() {
    let folder = folder("unknown");
    oneactor(&folder, "sample --semantic-scal 1")
        .exits_with(2)
        .says("--semantic-scale");
    oneactor(&folder, "smaple").exits_with(2).says("sample");
    oneactor(&folder, "").exits_with(2).says("Usage: oneactor");
}

#[test]
fn damaged_jpegs_are_refused_and_pictures_of_other_formats_are_named() {
    let folder = folder_with_actor("jpegs");
    let mut bytes = Vec::new();
    let picture = image::RgbImage::from_fn(96, 96, |x, y| {
        image::Rgb([
            (x * 31 % 251) as u8,
            (y * 17 % 241) as u8,
            (x * y % 253) as u8,
        ])
    });
    picture
        .write_to(
            &mut std::io::Cursor::new(&mut bytes),
            image::ImageFormat::Jpeg,
        )
        .expect("a JPEG can be made");
    fs::write(folder.join("whole.jpg"), &bytes).expect("writable");
    fs::write(folder.join("part.jpg"), &bytes[..bytes.len() * 3 / 10]).expect("writable");
    let (from, to) = (bytes.len() / 2, bytes.len() * 3 / 4);
    bytes[from..to].fill(0);
    fs::write(folder.join("hole.jpg"), &bytes).expect("writable");
    for (name, said) in [
        ("part.jpg", "part.jpg: the JPEG ends after"),
        ("hole.jpg", "hole.jpg: the JPEG is damaged near byte"),
    ] {
        for line in [
            format!("tune robot --target-image {name} --max-steps 1 --overwrite"),
            format!("evaluate {name} --target whole.jpg --model toy --metrics clip_i"),
            format!("evaluate whole.jpg --target {name} --model toy --metrics clip_i"),
        ] {
            oneactor(&folder, &line)
                .exits_with(2)
                .says(said)
                .writes_nothing();
        }
    }
    fs::write(folder.join("x.webp"), b"RIFF\x10\0\0\0WEBPVP8 ").expect("writable");
    for (name, kind) in [
        ("whole.jpg", "JPEG"),
        ("part.jpg", "JPEG"),
        ("x.webp", "WebP"),
    ] {
        let said = format!("{name} is a {kind} picture, expected a PNG that this program wrote");
        oneactor(&folder, &format!("inspect {name}"))
            .exits_with(2)
            .says(&said);
        oneactor(&folder, &format!("sample --from {name} -o out"))
            .exits_with(2)
            .says(&said)
            .writes_nothing();
    }
    oneactor(
        &folder,
        "tune robot --target-image x.webp --max-steps 1 --overwrite",
    )
    .exits_with(2)
    .says("x.webp is a WebP picture, expected a PNG or JPEG: save it as PNG first");
}

#[test]
fn without_the_default_model_the_toy_is_suggested() {
    let folder = folder("no-model");
    oneactor(
        &folder,
        "generate-base -p 'a robot' --subject robot --offline -o base",
    )
    .exits_with(3)
    .says("to try the program without a download, give --model toy");
}

#[test]
fn a_command_to_be_copied_is_quoted_for_the_shell() {
    let folder = folder("quoted-hint");
    oneactor(&folder, "tune 'my robot'")
        .exits_with(2)
        .says("run `oneactor generate-base … -o 'my robot'` first");
}

#[test]
fn long_prompts_are_shortened_in_messages() {
    let folder = folder("long-message");
    let prompt = format!("a robot {}", "in the snow ".repeat(100));
    let line = format!("generate-base --model toy -p '{prompt}' --subject robot --dry-run -o base");
    let run = oneactor(&folder, &line)
        .exits_with(2)
        .says("1 of 1 prompt would be cut");
    let longest = run.stderr.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(400), "{}", run.stderr);
}
