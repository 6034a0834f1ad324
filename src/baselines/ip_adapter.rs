//! The plain IP-Adapter (arXiv 2308.06721): the target picture is an image prompt in addition to the text.
//!
//! `Z = Attention(Q, K, V) + λ Attention(Q, K', V')` in every cross-attention layer, with keys K' and values V'
//! of four tokens, which a projection makes of a CLIP image embedding (Eq. 5). In the branch without the
//! prompt, the embedding is zeros, and the tokens are the projection of zeros. Written from the paper; the
//! names in the file and the order of the layers are those of diffusers' loader. The variants with a resampler
//! ("plus"), for faces and for face identities are not supported.

use std::rc::Rc;

use anyhow::{Context, Result};
use image::RgbImage;
use tch::{Tensor, no_grad};

use super::{Baseline, Scene};
use crate::backbone::guidance::{Guidance, PlainGuidance};
use crate::backbone::{Backbone, Conditioning};
use crate::error::{model, usage};
use crate::io::finite_scan::FiniteScan;
use crate::io::ip_adapter::IpAdapterFiles;
use crate::io::model_files::{ModelFiles, NeededFile, Needs};
use crate::io::weights::{WeightPath, Weights};
use crate::models::unet::ip_adapter::{ImageAttention, ImageProjection, ImagePrompt, TOKENS};
use crate::models::vision::clip_image_encoder::ClipImageEncoder;
use crate::models::vision::encoder_folder::EncoderFolder;

/// The inputs of an image prompt.
pub struct ImageSource<'a> {
    /// Adapter and image encoder.
    pub files: &'a IpAdapterFiles,
    /// The target picture.
    pub picture: &'a RgbImage,
    /// λ.
    pub scale: f64,
}

/// An image prompt for any number of pictures.
pub struct IpAdapter {
    /// Tokens of the picture, one row.
    with_picture: ImagePrompt,
    /// Tokens of zeros in place of the picture's embedding.
    without: ImagePrompt,
}

impl IpAdapter {
    /// Encodes the picture and loads the adapter. The image encoder is freed afterwards.
    ///
    /// # Errors
    /// When a file is missing or damaged, belongs to another kind of adapter, or does not fit the model or the
    /// encoder.
    pub fn load(source: &ImageSource, backbone: &Backbone) -> Result<Self> {
        let _frozen = tch::no_grad_guard();
        let (files, path) = source.files.encoder();
        let folder = EncoderFolder { files, path };
        let placement = (backbone.device(), backbone.kind());
        let encoder = ClipImageEncoder::load(&folder, placement).context("the image encoder")?;
        let image_embeds = encoder.image_embeds(source.picture); // [1, E]
        let width = encoder.projection_dim();
        drop(encoder);

        let adapter = source.files.adapter()?;
        let name = adapter.name();
        let weights = Weights::open(&[adapter], placement.0, placement.1)?;
        let (root, config) = (weights.root(), backbone.unet_config());
        check_kind(&root)
            .and_then(|()| {
                let text = (backbone.facts.name.as_str(), config.cross_attention_dim);
                check_fit(&root, (files.name(), width), text)
            })
            .with_context(|| format!("the IP-Adapter {name}"))?;
        let dim = config.cross_attention_dim;
        let projection = ImageProjection::new(&(&root / "image_proj"), width, dim);
        let layers = config.cross_attention_layers()?;
        let attention = Rc::new(ImageAttention::new(&(&root / "ip_adapter"), &layers, dim));
        let read = weights.finish()?;
        FiniteScan::start(read.values).wait()?;
        files.note_unused_of(&name, &read.unused);

        let prompt = |image_embeds: &Tensor| ImagePrompt {
            tokens: no_grad(|| projection.forward(image_embeds)), // [1, 4, D]
            attention: Rc::clone(&attention),
            scale: source.scale,
        };
        Ok(IpAdapter {
            with_picture: prompt(&image_embeds),
            without: prompt(&image_embeds.zeros_like()),
        })
    }

    /// Rows of prompts `[R, S, D]`, each with the picture.
    pub fn with_picture(&self, prompts: &Conditioning) -> Conditioning {
        beside(prompts, &self.with_picture)
    }

    /// Rows without the prompt, which have no picture.
    pub fn without_picture(&self, rows: &Conditioning) -> Conditioning {
        beside(rows, &self.without)
    }
}

/// The same image prompt for all rows.
fn beside(rows: &Conditioning, image: &ImagePrompt) -> Conditioning {
    let count = rows.prompt_embeds.size()[0];
    rows.with_image(image.map(|tokens| tokens.repeat([count, 1, 1])))
}

impl Baseline for IpAdapter {
    /// Eq. (3) between both branches.
    fn guidance(&self, scene: &Scene) -> Result<Box<dyn Guidance>> {
        let [height, width] = scene.size;
        let prompt = scene.backbone.encode_tokens(scene.prompt, height, width);
        Ok(Box::new(PlainGuidance::new(
            &self.without_picture(scene.negative),
            &self.with_picture(&prompt),
            scene.guidance_scale,
        )))
    }
}

/// Refuses the other kinds of adapters. Each kind is recognised by a key that only it has.
fn check_kind(root: &WeightPath) -> Result<()> {
    if root.contains("image_proj.proj.weight") {
        return Ok(());
    }
    let kinds = [
        (
            "image_proj.latents",
            "with a resampler (\"plus\"): use one without `plus` in its name",
        ),
        (
            "image_proj.perceiver_resampler.proj_in.weight",
            "for face identities (\"FaceID plus\")",
        ),
        (
            "image_proj.proj.3.weight",
            "for whole faces (\"full face\")",
        ),
        (
            "image_proj.proj.2.weight",
            "for face identities (\"FaceID\")",
        ),
    ];
    let found = kinds.iter().find(|(key, _)| root.contains(key));
    Err(model(match found {
        Some((key, kind)) => format!(
            "found {key}, expected image_proj.proj.weight: only the plain IP-Adapter is supported, and this is \
            an adapter {kind}"
        ),
        None => "found no image_proj.proj.weight: expected an IP-Adapter with `image_proj` and `ip_adapter` in one file"
            .to_owned(),
    }))
}

/// Refuses an adapter for another image encoder or another kind of model, by the widths of its tensors.
fn check_fit(
    root: &WeightPath,
    (encoder, width): (&str, i64),
    (model_name, dim): (&str, i64),
) -> Result<()> {
    let Some(&[rows, reads]) = root.shape("image_proj.proj.weight") else {
        return Ok(()); // the loader reports the error
    };
    if rows != TOKENS * dim {
        return Err(usage(format!(
            "its tokens have width {}, expected {dim} for the model {model_name}: use an adapter for this kind \
            of model",
            rows / TOKENS
        )));
    }
    if reads != width {
        return Err(usage(format!(
            "it needs image embeddings of width {reads}, but those of the image encoder {encoder} have width \
            {width}: give the encoder that it was trained with (--image-encoder)"
        )));
    }
    Ok(())
}

/// The files of adapter and image encoder, which are found together if they are in one repository.
///
/// # Errors
/// When a file is missing, or the hub cannot be reached.
pub fn needed_files(found: &IpAdapterFiles) -> Result<Vec<(Rc<ModelFiles>, Vec<NeededFile>)>> {
    let (encoder, path) = found.encoder();
    let mut of_encoder = EncoderFolder {
        files: encoder,
        path,
    }
    .needed()?;
    let mut parts = Vec::new();
    if let Some((files, path)) = found.adapter_source() {
        let mut needs = Needs::of(files);
        needs.require(path)?;
        if Rc::ptr_eq(files, encoder) {
            needs.found.append(&mut of_encoder);
        }
        parts.push((Rc::clone(files), needs.found));
    }
    if !of_encoder.is_empty() {
        parts.push((Rc::clone(encoder), of_encoder));
    }
    Ok(parts)
}
