//! How far the program may be from its references, for all files that have no reason of their own.

/// Of a pass through one network, as a part of the norm. Both sides run the same f32 kernels of libtorch; where the order
/// of a sum differs the outputs differ by a few 1e-7, a wrong constant (an epsilon, a GELU) by 1e-4 or more.
pub const NETWORK: f64 = 1e-5;

/// Of the latents after a whole run. The same runs in f64 differ from diffusers' own f32 by 2e-7 to 1.5e-6: thirty steps do
/// not amplify rounding, so 1e-4 leaves room for other processors, not for a wrong constant.
pub const LATENTS: f64 = 1e-4;

/// Of a level of a picture that was a JPEG: the inverse transform, the colours and the upsampled halves of colour are rounded
/// in another order by each decoder.
pub const JPEG: u8 = 4;
