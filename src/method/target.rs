//! The target: the base image that is most similar to the others (`--target auto`), or a photo.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::base_set::BaseSet;
use super::crop::{CropBox, enlarged, with_proportions};
use crate::backbone::unet_pass::UnetPass;
use crate::backbone::{Backbone, finite};
use crate::libtorch::noise;

/// The base set with a photo `[1, 3, H, W]` in [0, 1] added after its images, so that the photo can be the
/// target like any base image.
///
/// The photo's z_0 is the mean of the VAE's encoding. Its h is that of Eq. (7): the encoder features of the
/// latents before the last denoising step, with the base prompt. A photo was never denoised, so these latents
/// are z_0 with the noise level of that step, `timestep`, added by Eq. (1); all samplers here give the network
/// latents of this form. The noise is drawn from `seed`.
///
/// # Errors
/// When a value is not finite, and when the tokenizer fails.
pub fn with_photo(
    backbone: &Backbone,
    base: &BaseSet,
    photo: &Tensor,
    timestep: i64,
    seed: i64,
) -> Result<BaseSet> {
    let _frozen = tch::no_grad_guard();
    let z_0 = backbone.encode(photo);
    finite(&z_0, "the photo's latents", backbone.vae_kind())?;
    let eps = noise(seed, &z_0.size()).to_device(backbone.device());
    let timesteps = Tensor::from_slice(&[timestep]).to_device(backbone.device());
    let z_t = backbone.noise_schedule.add_noise(&z_0, &eps, &timesteps);
    let prompt = backbone.encode_prompt(&base.facts.prompt, base.facts.height, base.facts.width)?;
    let h = backbone
        .unet_encode(&UnetPass::new(&z_t, &timesteps, &prompt))
        .h;
    finite(&h, "the photo's features", backbone.kind())?;
    let join = |images: &Tensor, photo: Tensor| {
        Tensor::cat(
            &[
                images,
                &photo.to_kind(Kind::Float).to_device(images.device()),
            ],
            0,
        )
    };
    Ok(BaseSet {
        facts: base.facts.clone(),
        latents: join(&base.latents, z_0),
        encoder_features: join(&base.encoder_features, h),
        seeds: [&base.seeds[..], &[-1]].concat(),
    })
}

/// The variants of the target, of which each step draws one, `[2 or 3, C, H, W]`: z_0 of the target `[1, C, H,
/// W]`, of its mirror image and, if there is a crop, of the enlarged crop (Sec. 3.2).
///
/// # Errors
/// When the picture contains a value that is not finite.
pub fn variants(backbone: &Backbone, target: &Tensor, crop: Option<CropBox>) -> Result<Tensor> {
    let picture = backbone.decode(target)?; // [1, 3, H, W]
    let mut variants = vec![target.shallow_clone(), backbone.encode(&picture.flip([-1]))];
    if let Some(part) = crop {
        let (_, _, height, width) = picture.size4()?;
        let part = with_proportions(part, width, height);
        variants.push(backbone.encode(&enlarged(&picture, part)));
    }
    Ok(Tensor::cat(&variants, 0))
}

/// The most typical of N base images by their features `h [N, C, H, W]`: the image with the smallest sum of
/// distances to the others (the medoid), or the first such image.
pub fn most_typical(h: &Tensor) -> usize {
    let sums = distances(h).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    sums.argmin(None, false).int64_value(&[]) as usize
}

/// The base image that is most similar to base image `image` by the features `h [N, C, H, W]`; `None` if there
/// is no other image.
pub fn most_like(h: &Tensor, image: usize) -> Option<usize> {
    let others = distances(h).get(image as i64);
    let _ = others.get(image as i64).fill_(f64::INFINITY);
    let nearest = others.argmin(None, false).int64_value(&[]) as usize;
    (nearest != image).then_some(nearest)
}

/// Euclidean distances `[N, N]` between N maps `h [N, C, H, W]`. Each map is averaged over its positions, and
/// each channel is standardised over the N images.
fn distances(h: &Tensor) -> Tensor {
    let pooled = h
        .to_kind(Kind::Float)
        .mean_dim([2i64, 3].as_slice(), false, Kind::Float); // [N, C]
    let centred = &pooled - pooled.mean_dim([0i64].as_slice(), true, Kind::Float);
    let deviation = centred
        .square()
        .mean_dim([0i64].as_slice(), true, Kind::Float)
        .sqrt();
    let standard = centred / deviation.clamp_min(1e-12);
    (standard.unsqueeze(0) - standard.unsqueeze(1))
        .square()
        .sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
        .sqrt() // [N, N]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_in_the_middle_is_the_most_typical() {
        let h = Tensor::from_slice(&[0.0f32, 10.0, 4.0, 5.0, 9.0]).view([5, 1, 1, 1]);
        assert_eq!(most_typical(&h), 3); // sums of distances: 28, 22, 16, 15, 19
    }

    #[test]
    fn the_nearest_other_image_is_the_most_alike() {
        let h = Tensor::from_slice(&[0.0f32, 10.0, 4.0, 5.0, 9.0]).view([5, 1, 1, 1]);
        let nearest = [0, 1, 2, 3, 4].map(|image| most_like(&h, image));
        assert_eq!(nearest, [Some(2), Some(4), Some(3), Some(2), Some(1)]);
        assert_eq!(most_like(&h.narrow(0, 0, 1), 0), None);
    }
}
