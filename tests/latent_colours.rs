//! Colours of latents without the VAE, on the embedded toy model.

mod common;

use common::toy;
use oneactor::backbone::denoise::denoise;
use oneactor::backbone::guidance::PlainGuidance;
use oneactor::backbone::latent_colours::LatentColours;
use oneactor::libtorch::seeded;
use oneactor::schedulers::new_scheduler;
use tch::{Device, Kind, Tensor};

/// The share of the variance of the colours, over all positions and channels, that the map
/// explains: R².
fn explained(colours: &LatentColours, latents: &Tensor, pictures: &Tensor, f: i64) -> f64 {
    let told = colours.pictures(latents);
    let seen = pictures.avg_pool2d([f, f], [f, f], [0, 0], false, true, None::<i64>);
    let mean = seen.mean_dim([0i64, 2, 3].as_slice(), true, Kind::Float);
    let squares = |t: Tensor| (&t * &t).sum(Kind::Double).double_value(&[]);
    1.0 - squares(told - &seen) / squares(&seen - mean)
}

#[test]
fn a_linear_map_predicts_most_of_the_colours_and_learns_from_finished_pictures() {
    let backbone = toy();
    let f = backbone.vae_scale_factor();
    let prompt = |text: &str| {
        backbone
            .encode_prompt(text, 64, 64)
            .expect("the toy encodes")
    };
    let guidance = PlainGuidance::new(&prompt(""), &prompt("a robot in a park"), 7.5);
    let kind = backbone.scheduler_file.own_kind().expect("a known class");
    let draw = |seeds: [i64; 3]| {
        let start = seeds.map(|seed| backbone.initial_latents(seed, 64, 64));
        let mut scheduler = new_scheduler(kind, &backbone.scheduler_file, 8).expect("eight steps");
        let start = Tensor::cat(&start, 0);
        let mut told = Vec::new();
        let drawn = denoise(
            &backbone,
            scheduler.as_mut(),
            &start,
            &guidance,
            None,
            &mut |taken| {
                told.push(taken.z_0(&backbone.noise_schedule));
                Ok(())
            },
        );
        let latents = drawn.expect("finite latents").latents;
        // After the last step, which adds no noise, the predicted clean latents are the latents.
        let last = told.last().expect("there were steps");
        let gap = (last - &latents).abs().max().double_value(&[]);
        assert!(
            gap < 1e-3,
            "{gap}: sums of f32 in another order, ᾱ of the nearest timestep"
        );
        let pictures = backbone.decode(&latents).expect("finite pictures");
        (latents, pictures)
    };
    let mut colours = LatentColours::fit(&backbone);
    let (latents, pictures) = draw([0, 1, 2]);
    let (other_latents, other_pictures) = draw([3, 4, 5]);
    let before = explained(&colours, &other_latents, &other_pictures, f);
    colours.add(&latents, &pictures);
    let after = explained(&colours, &other_latents, &other_pictures, f);
    // Reference: the same least squares in PyTorch on diffusers' VAE, over 18 pictures of three
    // subjects. R² is 0.72 from the squares alone and 0.81 with three finished pictures; fitted to
    // all 18 pictures, a linear map reaches at most 0.84. Three pictures of one subject differ from
    // these values by some hundredths.
    assert!(before > 0.65, "{before}");
    assert!(after > before && after > 0.75, "{before}, then {after}");

    // Every run gives the same result, and no random number is drawn.
    let numbers = || Tensor::randn([4], (Kind::Float, Device::Cpu));
    let expected = {
        let _drawing = seeded(7);
        numbers()
    };
    let fresh = {
        let _drawing = seeded(7);
        let fresh = LatentColours::fit(&backbone);
        assert_eq!(numbers(), expected);
        fresh
    };
    let again = LatentColours::fit(&backbone).pictures(&latents);
    assert_eq!(fresh.pictures(&latents), again);
    // A value that is not finite gives grey, and does not end the run.
    let broken = fresh.pictures(&Tensor::full(
        [1, 4, 2, 2],
        f64::NAN,
        (Kind::Float, Device::Cpu),
    ));
    assert_eq!(
        broken,
        Tensor::full([1, 3, 2, 2], 0.5, (Kind::Float, Device::Cpu))
    );
}
