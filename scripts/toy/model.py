"""The toy's networks: SDXL's architecture with small numbers; building, loading and saving them."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TIME_IDS = [64.0, 64.0, 0.0, 0.0, 64.0, 64.0]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012}


def load_tokenizers(folder):
    return [CLIPTokenizer.from_pretrained(Path(folder, name)) for name in ("tokenizer", "tokenizer_2")]


def new_vae():
    return AutoencoderKL(
        sample_size=64,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        force_upcast=False,
    )


def new_text_encoders(tokenizer):
    common = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "num_hidden_layers": 3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 1,
    }
    return (
        CLIPTextModel(
            CLIPTextConfig(
                hidden_size=64,
                intermediate_size=256,
                num_attention_heads=2,
                projection_dim=64,
                hidden_act="quick_gelu",
                **common,
            )
        ),
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                hidden_size=128,
                intermediate_size=384,
                num_attention_heads=4,
                projection_dim=128,
                hidden_act="gelu",
                **common,
            )
        ),
    )


def new_unet():
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 1],
        attention_head_dim=[2, 3, 4],
        cross_attention_dim=192,
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=32 * 6 + 128,
    )


def load_networks(folder, tokenizer):
    """Text encoders and UNet of a checkpoint, with the embedding tables extended for a tokenizer."""
    kind = {"torch_dtype": torch.float32}
    encoders = (
        CLIPTextModel.from_pretrained(Path(folder, "text_encoder"), **kind),
        CLIPTextModelWithProjection.from_pretrained(Path(folder, "text_encoder_2"), **kind),
    )
    old = load_tokenizers(folder)[0].get_vocab()
    fitted = new_text_encoders(tokenizer)
    for encoder, target in zip(encoders, fitted):
        state = encoder.state_dict()
        key = next(name for name in state if name.endswith("token_embedding.weight"))
        state[key] = _remap_rows(state[key], old, tokenizer.get_vocab())
        target.load_state_dict(state)
    return (*fitted, UNet2DConditionModel.from_pretrained(Path(folder, "unet"), **kind))


def _remap_rows(table, old, new):
    """Copies the row of each token; new tokens start as random rows with the table's standard deviation."""
    generator = torch.Generator().manual_seed(0)
    rows = table.mean(0) + table.std(0) * torch.randn(len(new), table.shape[1], generator=generator)
    for token, index in new.items():
        if token in old:
            rows[index] = table[old[token]]
    return rows


def pipeline(tokenizers, encoders, unet, vae):
    scheduler = EulerDiscreteScheduler(
        **BETAS,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        steps_offset=1,
        timestep_spacing="leading",
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def hidden_states(encoders, ids_1, ids_2):
    """The conditions of SDXL: both penultimate hidden states [B, S, 192] and the pooled embedding [B, 128]."""
    first = encoders[0](ids_1, output_hidden_states=True)
    second = encoders[1](ids_2, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


def alphas_cumprod():
    betas = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)
