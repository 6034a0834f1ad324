"""Expected results for model folders in other forms than `shapes.py` writes, by diffusers and transformers.

`learnt/` is a pipeline that transformers 5 saved after textual inversion, without vocab.json; the word `<figure>` has
two vectors in each text encoder. `both/` has whole weights and shards with an index side by side in every network; the
weights that the reference does not use have other values. `clip/` and `sam/` were saved as processors by transformers
5, with a preprocessor_config.json beside them that must be ignored.
"""

import json
import shutil

import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SamImageProcessorPil,
    SamProcessor,
)

import expected_evaluate

RUN = {
    "prompt": "a photo of <figure> on the street, <figure>",
    "negative_prompt": "a <figure> in the snow",
    "height": 64,
    "width": 64,
    "seed": 3,
    "guidance_scale": 7.5,
    "steps": 6,
}
TEXTS = ["a hobbit in the snow", "a <mychar> at night", "Robot!"]


def draw(folder):
    """Latents and embeddings of one run."""
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(RUN["seed"])
    options = {key: RUN[key] for key in ("negative_prompt", "height", "width", "guidance_scale")}
    latents = pipe(
        RUN["prompt"], num_inference_steps=RUN["steps"], generator=generator, output_type="latent", **options
    ).images
    embeds = pipe.encode_prompt(
        RUN["prompt"],
        negative_prompt=RUN["negative_prompt"],
        do_classifier_free_guidance=True,
        device="cpu",
        num_images_per_prompt=1,
    )
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return {"latents": latents, "picture": (picture / 2 + 0.5).clamp(0, 1), **dict(zip(names, embeds))}


def finish(folder):
    tensors = draw(folder)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "expected.safetensors")
    (folder / "run.json").write_text(json.dumps(RUN))


def write_learnt(out, source):
    pipe = StableDiffusionXLPipeline.from_pretrained(source, add_watermarker=False, low_cpu_mem_usage=False)
    rng = torch.Generator().manual_seed(41)
    for encoder, tokenizer in ((pipe.text_encoder, pipe.tokenizer), (pipe.text_encoder_2, pipe.tokenizer_2)):
        vectors = 0.7 * torch.randn(2, encoder.config.hidden_size, generator=rng)
        pipe.load_textual_inversion({"<figure>": vectors}, token="<figure>", text_encoder=encoder, tokenizer=tokenizer)
    pipe.save_pretrained(out)
    finish(out)


def write_both(out, source):
    shutil.copytree(
        source,
        out,
        ignore=lambda _, names: [
            name for name in names if name in ("expected", "ip_adapter") or name.startswith("controlnet")
        ],
    )
    pipe = StableDiffusionXLPipeline.from_pretrained(source, add_watermarker=False, low_cpu_mem_usage=False)
    for name, is_of_diffusers in (("unet", True), ("vae", True), ("text_encoder", False), ("text_encoder_2", False)):
        stem = "diffusion_pytorch_model" if is_of_diffusers else "model"
        apart = out / "apart"
        size = sum(path.stat().st_size for path in (out / name).glob("*.safetensors"))
        getattr(pipe, name).save_pretrained(apart, max_shard_size=size // 3)
        taken = list(apart.glob("*-of-*.safetensors")) if is_of_diffusers else [out / name / f"{stem}.safetensors"]
        left = [out / name / f"{stem}.safetensors"] if is_of_diffusers else list(apart.glob("*-of-*.safetensors"))
        assert len(taken) + len(left) > 2
        for path in left:
            save_file({key: value * 0.5 for key, value in load_file(path).items()}, path, metadata={"format": "pt"})
        for path in [*apart.glob("*-of-*.safetensors"), apart / f"{stem}.safetensors.index.json"]:
            shutil.move(path, out / name / path.name)
        shutil.rmtree(apart)
    finish(out)


def write_encoders(out, evaluate, sam):
    """A CLIP and a SAM; of the SAM only the preparation of pictures."""
    folder = out / "clip"
    own = evaluate / "clip"
    tokenizer = CLIPTokenizer.from_pretrained(own)
    tokenizer.add_tokens("<mychar>")
    CLIPProcessor(image_processor=CLIPImageProcessorPil.from_pretrained(own), tokenizer=tokenizer).save_pretrained(
        folder
    )
    model = CLIPModel.from_pretrained(own, torch_dtype=torch.float32).eval()
    model.text_model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        model.text_model.get_input_embeddings().weight[-1] *= 3
    model.config.text_config.vocab_size = len(tokenizer)
    model.save_pretrained(folder)
    settings = json.loads((own / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    picture = Image.open(evaluate / "pictures" / "0.png").convert("RGB")
    pixel_values = CLIPImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt").pixel_values
    ids, embeds = expected_evaluate.text_embeds(model, folder, TEXTS)
    tensors = {
        "pixel_values": pixel_values,
        "image_embeds": expected_evaluate.image_embeds(model, pixel_values),
        "ids": ids,
        "text_embeds": embeds,
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "expected.safetensors")
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    folder = out / "sam"
    SamProcessor(SamImageProcessorPil.from_pretrained(sam / "fitting")).save_pretrained(folder)
    settings = json.loads((sam / "fitting" / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    (folder / "config.json").write_text((sam / "fitting" / "config.json").read_text())
    pixel_values = SamImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt").pixel_values
    save_file({"pixel_values": pixel_values.contiguous()}, folder / "expected.safetensors")


@torch.no_grad()
def write(out, fixtures):
    """Writes everything below `out`, from other fixtures."""
    out.mkdir(parents=True)
    write_learnt(out / "learnt", fixtures / "convproj")
    write_both(out / "both", fixtures / "convproj")
    write_encoders(out, fixtures / "evaluate", fixtures / "sam")
