//! The method of the paper, one idea per file.
//!
//! | paper | here, and in JSON | shape (SDXL, 1024 px) | file |
//! | --- | --- | --- | --- |
//! | h | `encoder_features` | `[1280, 32, 32]` | [`base_set`] |
//! | c | `prompt_embeds`, with `--long-prompts` 77 rows for each chunk | `[77, 2048]` | [`crate::backbone`] |
//! | c_b | `base_embedding`, rows of c at the base word's W tokens, without prompt weights | `[W, 2048]` | [`base_word`] |
//! | φ | [`projector::Projector`] | h, c_b → c_Δ | [`projector`] |
//! | c_Δ | `semantic_offset` | `[W, 2048]` | [`base_word`] |
//! | c_Δ^tar | `target_offset`, Eq. (16) | `[W, 2048]` | [`actor`] |
//! | c_Δ^aver | `average_offset`, Eq. (17) | `[W, 2048]` | [`actor`] |
//! | v | `semantic_scale`, Eq. (15) | 0.8 | [`guidance`] |
//! | η1, η2 | `eta_1`, `eta_2`, Eq. (19) | 8.5, 1.0 | [`guidance`] |
//! | λ1, λ2 | `lambda_1`, `lambda_2`, Eq. (14) | 0.5, 0.2 | [`loss`] |
//! | N, K | `num_base_images`, `num_auxiliary` | 11, 3 | [`tune`] |
//! | steps 1-20 | `guided_steps`, inclusive, counted from 1 | of 30 | [`guidance`] |
//! | g | `semantic_interpolation`, Fig. 3 | 1 | [`interpolation`] |
//! | masks of the subjects | `masks`, ones and zeros, by Otsu from attention maps | `[G, 128, 128]` | `masks`, [`otsu`], `regions` |
//! | the target's crop | `crop`, `crop_box`: left, top, width, height in pixels | `[4]` | `crop`, [`attention_box`], [`figure`] |
//! | z_0, z_t, ε, t | `z_0`, `z_t`, `eps`, `timesteps` | `[4, 128, 128]` | [`tune`] |
//!
//! All sizes follow from the model: SD 1.5 at 512 px has h `[1280, 8, 8]` and c `[77, 768]`, SD 2.1 at
//! 768 px h `[1280, 12, 12]` and c `[77, 1024]`.

pub mod actor;
pub(crate) mod adamw;
pub mod attention_box;
pub mod base_set;
pub mod base_word;
pub(crate) mod convergence;
pub(crate) mod crop;
pub mod diffusion_rows;
pub mod figure;
pub mod guidance;
pub mod interpolation;
pub mod learner;
pub mod loss;
pub(crate) mod masks;
pub mod origin;
pub mod otsu;
pub mod projector;
pub(crate) mod regions;
pub mod target;
pub mod templates;
pub mod tune;
