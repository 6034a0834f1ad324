"""Parameters and defaults of the classes whose config files or LoRA metadata the program reads: `constructors.json`.

`classes` has the parameters of each class with their defaults as JSON; `samplers` has every parameter of any sampler of
diffusers. Numbers that JSON cannot express are texts.
"""

import dataclasses
import inspect
import json
import math

import diffusers
import peft
import transformers

CLASSES = [
    *(
        getattr(diffusers, name)
        for name in (
            "UNet2DConditionModel",
            "ControlNetModel",
            "AutoencoderKL",
            "StableDiffusionXLPipeline",
            "StableDiffusionPipeline",
            "EulerDiscreteScheduler",
            "DPMSolverMultistepScheduler",
            "DDIMScheduler",
            "PNDMScheduler",
        )
    ),
    *(
        getattr(transformers, name)
        for name in (
            "CLIPTextConfig",
            "CLIPVisionConfig",
            "CLIPConfig",
            "ViTConfig",
            "Dinov2Config",
            "SamConfig",
            "SamVisionConfig",
            "SamPromptEncoderConfig",
            "SamMaskDecoderConfig",
            "CLIPTokenizer",
        )
    ),
    peft.LoraConfig,
]


def parameters(cls):
    """Name and default of each parameter of a constructor."""
    if cls is peft.LoraConfig:  # its signature hides the defaults that are created for each object
        made = cls().to_dict()
        return {field.name: made.get(field.name, {}) for field in dataclasses.fields(cls)}
    listed = inspect.signature(cls.__init__).parameters.values()
    named = (p for p in listed if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    written = {-math.inf: "-Infinity", inspect.Parameter.empty: None}
    return {
        p.name: written.get(p.default, p.default) if isinstance(p.default, (float, type)) else p.default for p in named
    }


def samplers():
    """Every parameter of every sampler."""
    classes = (
        getattr(diffusers, name)
        for name in dir(diffusers)
        if name.endswith("Scheduler") and not name.startswith("Flax")
    )
    return sorted({name for cls in classes for name in parameters(cls) if name not in ("args", "kwargs")})


def write(path):
    classes = {cls.__name__: parameters(cls) for cls in CLASSES}
    path.write_text(json.dumps({"classes": classes, "samplers": samplers()}, indent=1))
