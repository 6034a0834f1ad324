//! `evaluate` with distances: LPIPS and DreamSim, on the networks, heads and LoRA of the fixtures.

use image::RgbImage;

use crate::common::{Expected, fixture};
use crate::evaluate::{network, of_kind, rows};
use crate::{folder, oneactor};

/// Those pictures of the fixtures that are large enough for AlexNet.
const PICTURES: [i64; 5] = [0, 1, 2, 4, 5];

fn picture(number: i64) -> String {
    let path = fixture(&format!("evaluate/pictures/{number}.png"));
    path.display().to_string()
}

fn models() -> String {
    let [lpips, dreamsim] = [("lpips-model", "lpips"), ("dreamsim-model", "dreamsim")];
    format!(
        "{} {}",
        network(lpips.0, lpips.1),
        network(dreamsim.0, dreamsim.1)
    )
}

#[test]
fn distances_from_the_target_and_of_pairs_are_those_of_the_packages() {
    let folder = folder("distances");
    let others: Vec<String> = PICTURES[1..].iter().map(|&i| picture(i)).collect();
    let line = format!(
        "evaluate {} --target {} --metrics lpips,dreamsim {} --format json",
        others.join(" "),
        picture(0),
        models()
    );
    let run = oneactor(&folder, &line).exits_with(0).says(
        "lpips: pictures and target have different sizes; all are compared at 56 x 57 pixels",
    );
    let rows = rows(&run);
    let overall = &of_kind(&rows, "overall")[0]["scores"];
    let all = [0, 1, 2, 3, 4];
    for (name, numbers) in [("lpips", all), ("dreamsim", PICTURES)] {
        let expected =
            Expected::read(&format!("evaluate/{name}/expected.safetensors")).get("pairs");
        let distance = |i: usize, j: usize| expected.double_value(&[numbers[i], numbers[j]]);
        for (k, row) in (1..).zip(of_kind(&rows, "picture")) {
            let found = row["scores"][name].as_f64().expect("a number");
            let wanted = distance(0, k);
            assert!(
                (found - wanted).abs() < 1e-4 * wanted,
                "{name}: {found}, {wanted}"
            );
        }
        let mean = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
            .iter()
            .map(|&(i, j)| distance(i, j) / 6.0)
            .sum::<f64>();
        let found = &overall[format!("{name}_pairwise")];
        assert_eq!(found["count"], 6);
        let found = found["mean"].as_f64().expect("a mean");
        assert!(
            (found - mean).abs() < 1e-4 * mean,
            "{name}: {found}, {mean}"
        );
    }
}

#[test]
fn a_distance_has_an_upper_bound() {
    let folder = folder("distances-gate");
    let line = format!(
        "evaluate {} --target {} --metrics lpips {}",
        picture(1),
        picture(0),
        network("lpips-model", "lpips")
    );
    oneactor(&folder, &format!("{line} --fail-above lpips=9")).exits_with(0);
    oneactor(&folder, &format!("{line} --fail-above lpips=0"))
        .exits_with(6)
        .says("error: lpips: found ")
        .says("overall, expected at most 0");
    oneactor(&folder, &format!("{line} --fail-below lpips=0.5"))
        .exits_with(2)
        .says("--fail-below: found lpips, a distance, which is better when it is lower: use --fail-above lpips=0.5")
        .writes_nothing();
}

#[test]
fn a_folder_of_weights_is_needed_and_must_be_the_right_one() {
    let folder = folder("distances-models");
    let small = RgbImage::new(40, 30);
    small
        .save(folder.join("small.png"))
        .expect("the folder is writable");
    let of_dino = network("dreamsim-model", "dino");
    let of_lpips = network("lpips-model", "lpips");
    for (line, code, message) in [
        (
            "evaluate small.png --metrics lpips",
            2,
            "`python scripts/convert_encoder.py alexnet-owt-7be5be79.pth --as lpips --out models/lpips`, see configs/README.md#evaluate",
        ),
        (
            "evaluate small.png --metrics dreamsim",
            2,
            "--metrics dreamsim needs --dreamsim-model with a folder",
        ),
        (
            "evaluate small.png --metrics lpips --lpips-model nowhere",
            2,
            "--lpips-model: there is no folder nowhere, expected a folder with converted weights: make it with `python \
             scripts/convert_encoder.py alexnet-owt-7be5be79.pth --as lpips --out nowhere`, see configs/README.md#evaluate",
        ),
        (
            &format!("evaluate small.png --metrics lpips {of_lpips}"),
            2,
            "small.png: found 40 x 30 pixels, expected at least 31 x 31",
        ),
        (
            &format!("evaluate small.png --metrics dreamsim {of_dino}"),
            3,
            "config.json: model_type: found \"vit\", expected dreamsim",
        ),
    ] {
        oneactor(&folder, line)
            .exits_with(code)
            .says(message)
            .writes_nothing();
    }
}
