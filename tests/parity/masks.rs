//! Masked cross-attention and the independent variant of several subjects, compared with an
//! attention processor in Python written from the description; Otsu's threshold, compared with
//! scikit-image (`scripts/parity/expected_masks.py`); and the boxes of subjects and faces, which
//! use both.

use crate::bars::LATENTS;
use crate::common::{Expected, Report, SHAPES, backbone, json};
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::unet_pass::UnetPass;
use oneactor::backbone::{Backbone, Conditioning};
use oneactor::method::attention_box::{BoxTarget, find_box};
use oneactor::method::base_word::BaseWordPrompt;
use oneactor::method::figure::{bounding_box, largest_part};
use oneactor::method::guidance::{ClusterGuidance, GuidanceSettings, Offsets};
use oneactor::method::otsu::Otsu;
use oneactor::models::unet::attention_probe::{AttentionMaps, AttentionProbe, WatchedWords};
use oneactor::models::unet::cross_attention::{AttentionOutput, AttentionRequest};
use oneactor::models::unet::token_mask::{Answers, TokenMask, TokenRules};
use oneactor::models::unet::unet_2d_condition::AddedConditions;
use oneactor::schedulers::new_scheduler;
use serde::Deserialize;
use tch::{Device, Tensor};

/// Bar of the networks for one pass: masks only remove terms from the same sums.
const PASS: f64 = crate::bars::NETWORK;

#[test]
fn otsu_is_that_of_scikit_image() {
    let expected = Expected::read("otsu.safetensors");
    let mut compared = 0;
    while expected.has(&format!("{compared}.values")) {
        let get = |name: &str| expected.get(&format!("{compared}.{name}"));
        let (values, wanted) = (get("values").view([1, -1]), get("threshold"));
        let (least, most) = values.aminmax(1, true);
        let range = &most - &least;
        let scaled = (&values - &least) / range.clamp_min(f64::MIN_POSITIVE);
        let scaled_threshold = Otsu::new(Device::Cpu).thresholds(&scaled);
        // What is above it, which is all that the masks use.
        let found = scaled.gt_tensor(&scaled_threshold);
        assert!(
            found == values.gt_tensor(&wanted),
            "list {compared}: other values are above the threshold"
        );
        // The same bin, unless all values are equal; its centre may be rounded in another way.
        if range.double_value(&[]) > 0.0 {
            let threshold = (scaled_threshold * &range + least).double_value(&[]);
            let wanted = wanted.double_value(&[]);
            let difference = (threshold - wanted).abs() / wanted.abs().max(f64::MIN_POSITIVE);
            assert!(
                difference < 1e-14,
                "list {compared}: found {threshold}, expected {wanted}"
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 11);
}

#[test]
fn the_largest_part_and_its_box_are_those_of_scikit_image() {
    let expected = Expected::read("figures.safetensors");
    let mut compared = 0;
    while expected.has(&format!("{compared}.mask")) {
        let get = |name: &str| expected.get(&format!("{compared}.{name}"));
        let list = |mask: Tensor| Vec::<bool>::try_from(mask.gt(0.5).flatten(0, -1));
        let mask = get("mask");
        let width = mask.size()[1] as usize;
        let part = largest_part(&list(mask).expect("ones and zeros"), width);
        let wanted = list(get("part")).expect("ones and zeros");
        assert_eq!(part, wanted, "mask {compared}");
        let wanted = Vec::<i64>::try_from(get("box")).expect("four numbers");
        let found = bounding_box(&part, width).unwrap_or_default();
        assert_eq!(found[..], wanted, "mask {compared}");
        compared += 1;
    }
    assert_eq!(compared, 10);
}

#[derive(Deserialize)]
struct Boxes {
    word: String,
    subject: [i64; 4],
    face: [i64; 4],
    is_face: bool,
}

/// Maps differ by rounding, and a position near the threshold may fall on the other side. This
/// happens nowhere in these pictures, so the boxes are equal to the pixel.
#[test]
fn subjects_and_faces_are_where_attention_to_their_words_is() {
    let mut faces = 0;
    for shape in SHAPES {
        let backbone = backbone(shape);
        let z_0 = Expected::read(&format!("{shape}/expected/boxes.safetensors")).get("z_0");
        let cases = json::<Vec<Boxes>>(&format!("{shape}/expected/boxes.json"));
        assert_eq!(cases.len(), 3);
        for (i, case) in cases.into_iter().enumerate() {
            let find = |wanted| {
                let z_0 = z_0.narrow(0, i as i64, 1);
                let found = find_box(&backbone, &z_0, std::slice::from_ref(&case.word), wanted);
                found
                    .expect("the word is there")
                    .expect("attention differs from place to place")
            };
            let place = format!("{shape}: {}", case.word);
            let (subject, face) = (find(BoxTarget::Subject), find(BoxTarget::Face));
            assert_eq!(subject.part, case.subject, "{place}");
            assert_eq!(face.part, case.face, "{place}");
            assert_eq!(face.what == BoxTarget::Face, case.is_face, "{place}");
            faces += usize::from(case.is_face);
        }
    }
    assert!(faces > 0, "the fixtures have no plausible face");
}

/// The pass of the fixtures with its own regions: the words' tokens stand after the text a second
/// time, with their offsets.
fn masked(expected: &Expected, regions: &Tensor) -> (Conditioning, AttentionRequest) {
    let get = |name: &str| expected.get(name);
    let c = get("encoder_hidden_states");
    let places: [&[i64]; 2] = [&[2, 3, 7], &[5]];
    let mut rules = vec![Answers::Everywhere; c.size()[1] as usize];
    let mut states = vec![c.shallow_clone()];
    for (g, places) in places.iter().enumerate() {
        for &place in *places {
            rules[place as usize] = Answers::OutsideOf(1 << g);
            rules.push(Answers::Inside(g));
        }
        states.push(c.index_select(1, &Tensor::from_slice(places)) + get(&format!("offset.{g}")));
    }
    let plain = c.size()[1];
    // Each token as a word of its own.
    let words: Vec<Vec<i64>> = (0..plain + 4).map(|token| vec![token]).collect();
    let watched = WatchedWords::new(&words, plain + 4, &c);
    let rules = TokenRules::new(&vec![rules; 3], 2, &c);
    let conditioning = Conditioning {
        prompt_embeds: Tensor::cat(&states, 1),
        added: expected.has("text_embeds").then(|| AddedConditions {
            text_embeds: get("text_embeds"),
            time_ids: get("time_ids"),
        }),
        image: None,
    };
    let request = AttentionRequest {
        mask: Some(TokenMask::new(regions, &rules)),
        probe: Some(AttentionProbe::new(1, 2, &watched)),
        sharing: None,
    };
    (conditioning, request)
}

fn predict(
    backbone: &Backbone,
    expected: &Expected,
    conditioning: &Conditioning,
    request: AttentionRequest,
) -> (Tensor, AttentionOutput) {
    let (sample, timesteps) = (expected.get("sample"), expected.get("timesteps"));
    let pass = UnetPass::new(&sample, &timesteps, conditioning);
    tch::no_grad(|| backbone.predict_attending(pass, request))
}

#[test]
fn offsets_act_inside_their_masks_and_attention_maps_are_recorded() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/masks.safetensors"));
        let mut report = Report::new(&format!("masked attention on {shape}"));
        let (conditioning, request) = masked(&expected, &expected.get("regions"));
        let (found, attention) = predict(&backbone, &expected, &conditioning, request);
        report.close("noise_pred", &found, &expected.get("noise_pred"), PASS);

        let maps = attention.maps.expect("there is a probe");
        let layers: usize = maps.iter().map(|of| of.layers).sum();
        report.check(!expected.has(&format!("map.{layers}")), || {
            format!("found {layers} layers, expected more")
        });
        let wanted: Vec<Tensor> = (0..layers)
            .map(|i| expected.get(&format!("map.{i}")).narrow(0, 1, 2)) // [2, S, h, w]
            .collect();
        for (i, AttentionMaps { maps: map, layers }) in maps.iter().enumerate() {
            let of_this_size = |wanted: &&Tensor| wanted.size()[2..] == map.size()[2..];
            let wanted: Vec<&Tensor> = wanted.iter().filter(of_this_size).collect();
            report.check(wanted.len() == *layers, || {
                format!("found {layers} layers of a size, expected {}", wanted.len())
            });
            let wanted = Tensor::stack(&wanted, 0).mean_dim([0i64].as_slice(), false, None);
            let plain = wanted.size()[1];
            // The attention of a word is the sum for its plain token and its token with the offset.
            let mut found = map.narrow(1, 0, plain);
            for (k, place) in [2, 3, 7, 5].into_iter().enumerate() {
                let offset = map.narrow(1, plain + k as i64, 1);
                found = found.index_add(1, &Tensor::from_slice(&[place as i64]), &offset);
            }
            report.close(&format!("map {i}"), &found, &wanted, PASS);
        }
        report.finish();
    }
}

#[test]
fn a_mask_of_ones_equals_no_mask_and_a_mask_of_zeros_equals_no_offset() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/masks.safetensors"));
        let mut report = Report::new(&format!("masks of ones and zeros on {shape}"));
        let plain = expected.get("encoder_hidden_states");
        let moved = plain
            .index_add(
                1,
                &Tensor::from_slice(&[2i64, 3, 7]),
                &expected.get("offset.0"),
            )
            .index_add(1, &Tensor::from_slice(&[5i64]), &expected.get("offset.1"));
        let regions = expected.get("regions");
        for (name, embeds, regions) in [
            ("ones", moved, regions.ones_like()),
            ("zeros", plain, regions.zeros_like()),
        ] {
            let (conditioning, request) = masked(&expected, &regions);
            let (found, _) = predict(&backbone, &expected, &conditioning, request);
            let without = conditioning.with_prompt_embeds(embeds);
            let (wanted, _) = predict(&backbone, &expected, &without, Default::default());
            report.close(name, &found, &wanted, PASS);
        }
        report.finish();
    }
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    words: Vec<String>,
    everywhere: Vec<String>,
    height: i64,
    width: i64,
    seed: i64,
    steps: usize,
    guided_steps: (usize, usize),
    eta_1: f64,
    eta_2: f64,
    semantic_scale: f64,
    guidance_scale: f64,
}

/// Final latents and last masks of runs that differ only in their seeds, drawn together.
fn sample(backbone: &Backbone, runs: &[&Run], given: &Expected) -> (Tensor, Tensor) {
    let run = runs[0];
    let settings = GuidanceSettings {
        semantic_scale: run.semantic_scale,
        average_scale: 1.0,
        eta_1: run.eta_1,
        eta_2: run.eta_2,
        guided_steps: run.guided_steps,
        guidance_scale: run.guidance_scale,
    };
    let words = [&run.words[..], &run.everywhere].concat();
    let placed: Vec<bool> = (0..words.len()).map(|i| i < run.words.len()).collect();
    let offsets = (0..words.len()).map(|g| Offsets {
        target_offset: given.get(&format!("target.{g}")),
        average_offset: given.get(&format!("average.{g}")),
    });
    let offsets: Vec<Offsets> = offsets.collect();
    let size = [run.height, run.width];
    let prompt = BaseWordPrompt::with_words(backbone, &run.prompt, &words, size)
        .expect("the words are there");
    let negative = backbone
        .encode_negative(None, run.height, run.width)
        .expect("no prompt");
    let offsets = Offsets::cat(&offsets);
    let guidance =
        ClusterGuidance::with_regions(&negative, (&prompt, &placed), &offsets, &settings)
            .expect("offsets fit");
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, run.steps).expect("steps");
    let initial: Vec<Tensor> = runs
        .iter()
        .map(|run| backbone.initial_latents(run.seed, run.height, run.width))
        .collect();
    let initial = Tensor::cat(&initial, 0);
    let denoised = denoise(
        backbone,
        scheduler.as_mut(),
        &initial,
        &guidance,
        None,
        &mut |_| Ok(()),
    );
    let latents = denoised.expect("finite latents").latents;
    (latents, guidance.masks().expect("there were guided steps"))
}

#[test]
fn two_subjects_are_drawn_under_the_masks_of_every_step() {
    for shape in SHAPES {
        let backbone = backbone(shape);
        let expected = Expected::read(&format!("{shape}/expected/several.safetensors"));
        let runs = json::<Vec<Run>>(&format!("{shape}/expected/several.json"));
        let mut report = Report::new(&format!("two subjects on {shape}"));
        let together = sample(&backbone, &[&runs[0], &runs[1]], &expected);
        let alone = sample(&backbone, &[&runs[2]], &expected);
        let in_a_style = sample(&backbone, &[&runs[3]], &expected);
        for (i, row, (latents, masks)) in [
            (0, 0, &together),
            (1, 1, &together),
            (2, 0, &alone),
            (3, 0, &in_a_style),
        ] {
            let of_image = |t: &Tensor| t.narrow(0, row, 1);
            let wanted = |name: &str| expected.get(&format!("{i}.{name}"));
            report.check(of_image(masks) == wanted("masks"), || {
                format!("run {i}: the last masks differ")
            });
            let name = format!("run {i} latents");
            report.close(&name, &of_image(latents), &wanted("latents"), LATENTS);
        }
        report.finish();
    }
}
