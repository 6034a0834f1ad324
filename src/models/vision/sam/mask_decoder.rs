//! SAM's mask decoder: each mask has a token that becomes the weights of a product with the
//! picture's embeddings.

use tch::Tensor;

use super::SamMasks;
use super::mask_decoder_config::SamMaskDecoderConfig;
use super::two_way_transformer::SamTwoWayTransformer;
use crate::io::weights::WeightPath;
use crate::models::layers::{LayerNorm, Linear};

/// Linear layers with ReLU between them.
struct SamFeedForward {
    layers: Vec<Linear>,
}

impl SamFeedForward {
    /// Reads `proj_in`, `layers` and `proj_out`: `depth` layers.
    fn new(path: &WeightPath, widths: [i64; 3], depth: i64) -> Self {
        let [d_in, inner, d_out] = widths;
        let between = path / "layers";
        let mut layers = vec![Linear::new(&(path / "proj_in"), d_in, inner)];
        layers.extend((0..depth - 2).map(|i| Linear::new(&(&between / i), inner, inner)));
        layers.push(Linear::new(&(path / "proj_out"), inner, d_out));
        SamFeedForward { layers }
    }

    /// `[N, D_in]` to `[N, D_out]`.
    fn forward(&self, xs: &Tensor) -> Tensor {
        let (last, rest) = self.layers.split_last().expect("there are two at least");
        let inner = rest
            .iter()
            .fold(xs.shallow_clone(), |xs, layer| layer.forward(&xs).relu());
        last.forward(&inner)
    }
}

/// A transposed convolution that doubles both sides.
struct Upscale {
    weight: Tensor,
    bias: Tensor,
}

impl Upscale {
    fn new(path: &WeightPath, c_in: i64, c_out: i64) -> Self {
        Upscale {
            weight: path.tensor("weight", &[c_in, c_out, 2, 2]),
            bias: path.tensor("bias", &[c_out]),
        }
    }

    /// `[N, C_in, H, W]` to `[N, C_out, 2 H, 2 W]`.
    fn forward(&self, xs: &Tensor) -> Tensor {
        let bias = Some(&self.bias);
        xs.conv_transpose2d(&self.weight, bias, [2, 2], [0, 0], [0, 0], 1, [1, 1])
    }
}

/// Added to the variance in the norm between the two upscalings.
const EPS_OF_UPSCALE: f64 = 1e-6;

/// The mask decoder.
pub struct SamMaskDecoder {
    iou_token: Tensor,
    mask_tokens: Tensor,
    transformer: SamTwoWayTransformer,
    upscale_conv1: Upscale,
    upscale_conv2: Upscale,
    upscale_layer_norm: LayerNorm,
    output_hypernetworks_mlps: Vec<SamFeedForward>,
    iou_prediction_head: SamFeedForward,
}

impl SamMaskDecoder {
    /// Reads the network.
    pub fn new(path: &WeightPath, config: &SamMaskDecoderConfig) -> Self {
        let dim = config.hidden_size;
        // The first mask is for prompts that ask for a single mask, which this program does not do.
        let tokens = config.num_multimask_outputs + 1;
        let mlps = path / "output_hypernetworks_mlps";
        SamMaskDecoder {
            iou_token: (path / "iou_token").tensor("weight", &[1, dim]),
            mask_tokens: (path / "mask_tokens").tensor("weight", &[tokens, dim]),
            transformer: SamTwoWayTransformer::new(&(path / "transformer"), config),
            upscale_conv1: Upscale::new(&(path / "upscale_conv1"), dim, dim / 4),
            upscale_conv2: Upscale::new(&(path / "upscale_conv2"), dim / 4, dim / 8),
            upscale_layer_norm: LayerNorm::new(
                &(path / "upscale_layer_norm"),
                dim / 4,
                EPS_OF_UPSCALE,
            ),
            output_hypernetworks_mlps: (0..tokens)
                .map(|i| SamFeedForward::new(&(&mlps / i), [dim, dim, dim / 8], 3))
                .collect(),
            iou_prediction_head: SamFeedForward::new(
                &(path / "iou_prediction_head"),
                [dim, config.iou_head_hidden_dim, tokens],
                config.iou_head_depth,
            ),
        }
    }

    /// The masks for prompts `sparse [N, T, D]` on one picture, `image [1, D, H, W]` with its
    /// `positions [1, H W, D]`: masks `[N, M, 4 H, 4 W]` and their predicted quality `[N, M]`.
    pub fn forward(&self, image: &Tensor, positions: &Tensor, sparse: &Tensor) -> SamMasks {
        let (_, dim, height, width) = image.size4().expect("embeddings have four axes");
        let n = sparse.size()[0];
        let own = Tensor::cat(&[&self.iou_token, &self.mask_tokens], 0); // [2 + M, D]
        let own = own.unsqueeze(0).expand([n, -1, -1], false);
        let tokens = Tensor::cat(&[&own, sparse], 1); // [N, 2 + M + T, D]
        let keys = image
            .flatten(2, 3)
            .transpose(1, 2)
            .expand([n, -1, -1], false);
        let (tokens, keys) = self.transformer.forward(&tokens, keys, positions);

        let image = keys.transpose(1, 2).reshape([n, dim, height, width]);
        let upscaled = self.upscale_conv1.forward(&image); // [N, D / 4, 2 H, 2 W]
        let upscaled = self
            .upscale_layer_norm
            .forward_channels(&upscaled)
            .gelu("none");
        let upscaled = self.upscale_conv2.forward(&upscaled).gelu("none"); // [N, D / 8, 4 H, 4 W]

        let several = self.output_hypernetworks_mlps.iter().enumerate().skip(1);
        let weights: Vec<Tensor> = several
            .map(|(i, mlp)| mlp.forward(&tokens.select(1, 1 + i as i64)))
            .collect();
        let weights = Tensor::stack(&weights, 1); // [N, M, D / 8]
        let masks = weights.matmul(&upscaled.flatten(2, 3));
        let iou = self.iou_prediction_head.forward(&tokens.select(1, 0)); // [N, 1 + M]
        SamMasks {
            low_res_masks: masks.view([n, -1, 4 * height, 4 * width]),
            iou_predictions: iou.narrow(1, 1, iou.size()[1] - 1),
        }
    }
}
