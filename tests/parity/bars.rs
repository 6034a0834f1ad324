//! The largest allowed differences from the references, for all tests that have no reason for
//! another bar.

/// For one pass through one network, relative to the norm. Both sides run the same f32 kernels of
/// libtorch. Another order of a sum changes the output by a few 1e-7; a wrong constant (an epsilon,
/// a GELU) changes it by 1e-4 or more.
pub const NETWORK: f64 = 1e-5;

/// For the latents after a whole run. The same runs in f64 differ from diffusers' f32 by 2e-7 to
/// 1.5e-6: thirty steps do not amplify rounding. So 1e-4 leaves room for other processors, but not
/// for a wrong constant.
pub const LATENTS: f64 = 1e-4;

/// For a level of a picture that was a JPEG: each decoder rounds the inverse transform, the colours
/// and the upsampled chroma in another order.
pub const JPEG: u8 = 4;
