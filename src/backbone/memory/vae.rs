//! The memory of decoding a picture, layer by layer as in `models/autoencoder_kl.rs`.

use super::ledger::{Ledger, Map};
use crate::models::autoencoder_kl::AutoencoderKlConfig;

/// Peak number of values while decoding one picture, or one tile, of this height and width. Encoding needs fewer.
pub(super) fn decoding(vae: &AutoencoderKlConfig, (height, width): (i64, i64)) -> i64 {
    let last = vae.block_out_channels.len() - 1;
    let map = |level: usize| Map {
        rows: 1,
        positions: (height >> level) * (width >> level),
    };
    let mut ledger = Ledger::default();
    let mut hidden = vae.block_out_channels[last];
    let innermost = map(last).of(hidden);
    ledger.take(innermost); // conv_in
    for _ in 0..2 {
        ledger.resnet(map(last), hidden, hidden);
        ledger.free(innermost);
    }
    if vae.mid_block_add_attention {
        ledger.pass(7 * innermost); // norm, tokens, query, key, value, what they give, to_out
    }
    for level in (0..=last).rev() {
        let channels = vae.block_out_channels[level];
        for _ in 0..=vae.layers_per_block {
            ledger.resnet(map(level), hidden, channels);
            ledger.free(map(level).of(hidden));
            hidden = channels;
        }
        if level > 0 {
            let above = map(level - 1).of(channels);
            ledger.take(above); // repeated
            ledger.convolution(above, above, 9 * channels * channels);
            ledger.free(above + map(level).of(channels));
        }
    }
    ledger.pass(2 * map(0).of(hidden)); // conv_norm_out, and again in blocks for conv_out
    ledger.most()
}
