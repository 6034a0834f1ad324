"""Expected values of `evaluate --masks sam`, on two tiny SAMs with random weights: the results of transformers' image
processor and model for a few pictures, points and boxes, and the automatic prompt of src/measures/foreground.rs,
implemented again around them."""

import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import SamConfig, SamModel
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

import expected_evaluate
from expected_evaluate import IMAGENET, pictures

PROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    **IMAGENET,
}
CLASS = {"image_processor_type": "SamImageProcessor", "processor_class": "SamProcessor", "rescale_factor": 1 / 255}

# The old name of a tensor that a file holds once.
TIED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def part(image_size, patch_size, dim, **decoder):
    """The configs of the prompt encoder and the mask decoder."""
    return {
        "prompt_encoder_config": {
            "hidden_size": dim,
            "image_size": image_size,
            "patch_size": patch_size,
            "mask_input_channels": 8,
        },
        "mask_decoder_config": {"hidden_size": dim, "num_attention_heads": 4, **decoder},
    }


def checkpoints():
    """For each folder: the model, its processor's settings, and whether it has the old name."""
    windows = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 4, "global_attn_indexes": [1, 3]}
    return {
        # Windows of 3 in a grid of 8, so that the last windows have padding; a picture that never fills the square.
        "padded": (
            SamConfig(
                vision_config={
                    **windows,
                    "image_size": 128,
                    "patch_size": 16,
                    "window_size": 3,
                    "output_channels": 32,
                    "num_pos_feats": 16,
                },
                **part(128, 16, 32, mlp_dim=40, num_hidden_layers=3, iou_head_depth=4, iou_head_hidden_dim=20),
            ),
            {**PROCESSOR, "size": {"longest_edge": 120}, "pad_size": {"height": 128, "width": 128}, "resample": 2},
            False,
        ),
        # Windows without padding, another epsilon and inner width, one width of attention, and the old name.
        "fitting": (
            SamConfig(
                vision_config={
                    **windows,
                    "image_size": 64,
                    "patch_size": 8,
                    "window_size": 4,
                    "output_channels": 16,
                    "num_pos_feats": 8,
                    "layer_norm_eps": 1e-3,
                    "mlp_dim": 50,
                },
                **part(64, 8, 16, mlp_dim=24, attention_downsample_rate=1, layer_norm_eps=1e-3),
            ),
            {**PROCESSOR, "size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}, "resample": 3},
            True,
        ),
    }


def is_position(name):
    parts = ("pos_embed", "rel_pos", "token", "_embed.", "positional")
    return any(part in name for part in parts) and "projection" not in name


def randomise(model, seed):
    """Weights with which every part matters; the library's own have zero positions, and nearly flat masks."""
    model = expected_evaluate.randomise(model, seed, 0.3, is_position)
    with torch.no_grad():
        # So that the predicted IoU lies between 0 and 1, as with a trained head.
        last = model.mask_decoder.iou_prediction_head.proj_out
        last.weight.mul_(0.2)
        last.bias.copy_(0.7 + 0.1 * last.bias)
    return model


def widths_first(picture, processor):
    """The picture at its size in the square, widths first: Pillow 13 may resize the heights first, which changes values
    by one level."""
    height, width = processor._get_preprocess_shape(picture.size[::-1], processor.size["longest_edge"])
    return picture.resize((width, picture.height), processor.resample).resize((width, height), processor.resample)


def prompts(size):
    """Points with labels, and boxes with points, in pixels of a square of this side."""
    rng = np.random.default_rng(11)
    points = rng.uniform(0, size, (4, 3, 2))
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]])
    boxes = np.sort(rng.uniform(0, size, (3, 2, 2)), axis=1).reshape(3, 4)
    with_boxes = (rng.uniform(0, size, (3, 2, 2)), np.array([[1, 0], [0, 0], [1, 1]]), boxes)
    return {"points": (points, labels, None), "boxes": with_boxes}


def ask(model, embeddings, points, labels, boxes):
    """Low-resolution masks [N, 3, h, w] and predicted IoU [N, 3] on one picture."""
    tensor = lambda values: None if values is None else torch.from_numpy(np.asarray(values)).float()[None]
    options = {
        "input_points": tensor(points),
        "input_labels": torch.from_numpy(np.asarray(labels))[None],
        "input_boxes": tensor(boxes),
    }
    result = model(image_embeddings=embeddings, **options)
    return result.pred_masks[0], result.iou_scores[0]


def automatic(width, height):
    """The points and boxes of the automatic prompt, for a picture with these sides in the square."""
    sides = np.array([width, height])
    corners = [[0.02, 0.02], [0.98, 0.02]]
    grid = [[[x, y], *corners] for y in (0.35, 0.5, 0.65) for x in (0.35, 0.5, 0.65)]
    middle = [[[0.5, 0.5], *corners]] * 3
    boxes = np.array([[[m, m], [1 - m, 1 - m]] for m in (0.05, 0.15, 0.25)]) * sides - 0.5
    at = lambda points: np.array(points) * sides - 0.5
    return [(at(grid), [[1, 0, 0]] * 9, None), (at(middle), [[1, 0, 0]] * 3, boxes.reshape(3, 4))]


def correlation(mask):
    """The score of a mask, with the Gaussian around the middle."""
    if mask.all() or not mask.any():
        return -1.0
    rows, columns = mask.shape
    y, x = [(np.arange(n) + 0.5) / n - 0.5 for n in (rows, columns)]
    gaussian = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * 0.25**2))
    return np.corrcoef(mask.ravel(), gaussian.ravel())[0, 1]


def foreground(model, processor, embeddings, original, reshaped):
    """The chosen mask at the picture's size and its predicted IoU; no mask if no score is above 0."""
    height, width = reshaped
    found = [ask(model, embeddings, *prompt) for prompt in automatic(width, height)]
    masks, iou = [torch.cat([pair[i].flatten(0, 1) for pair in found]) for i in (0, 1)]
    scale = masks.shape[-1] / processor.pad_size["width"]
    rows, columns = [int(np.floor(side * scale + 0.5)) for side in (height, width)]
    likely = [correlation(mask) for mask in (masks[:, :rows, :columns] > 0).numpy()]
    scores = np.clip(iou.double().numpy(), 0, 1) * np.array(likely)
    best = int(scores.argmax())
    if scores[best] <= 0:
        return {}
    mask = processor.post_process_masks([masks[best][None, None]], [original], [reshaped])[0][0, 0]
    if mask.all() or not mask.any():
        return {}
    return {"mask": mask.to(torch.uint8), "iou": iou[best].double(), "candidates": torch.from_numpy(scores)}


def expected(model, processor, shown):
    """Expected values for all pictures."""
    size = processor.pad_size["width"]
    asked = prompts(size)
    tensors = {}
    for name, (points, labels, boxes) in asked.items():
        tensors.update({f"{name}.points": torch.from_numpy(points).float(), f"{name}.labels": torch.from_numpy(labels)})
        if boxes is not None:
            tensors[f"{name}.boxes"] = torch.from_numpy(boxes).float()
    for i, (picture, _) in enumerate(shown):
        inputs = processor(widths_first(picture, processor), return_tensors="pt")
        at_once = processor(picture, return_tensors="pt")
        original, reshaped = [tuple(at_once[key][0].tolist()) for key in ("original_sizes", "reshaped_input_sizes")]
        embeddings = model.get_image_embeddings(inputs.pixel_values)
        tensors.update(
            {
                f"{i}.pixel_values": inputs.pixel_values,
                f"{i}.at_once": at_once.pixel_values,
                f"{i}.image_embeddings": embeddings,
            }
        )
        for name, prompt in asked.items():
            masks, iou = ask(model, embeddings, *prompt)
            final = processor.post_process_masks([masks], [original], [reshaped])[0]
            tensors.update(
                {f"{i}.{name}.low_res_masks": masks, f"{i}.{name}.iou": iou, f"{i}.{name}.masks": final.to(torch.uint8)}
            )
        chosen = foreground(model, processor, embeddings, original, reshaped)
        tensors.update({f"{i}.foreground.{key}": value for key, value in chosen.items()})
    return {key: value.contiguous() for key, value in tensors.items()}


@torch.no_grad()
def write(out):
    """Writes everything below `out`."""
    (out / "pictures").mkdir(parents=True)
    shown = pictures(out / "pictures")
    for seed, (name, (config, settings, has_old_name)) in enumerate(checkpoints().items()):
        folder = out / name
        model = randomise(SamModel(config), 700 + 5 * seed)
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "preprocessor_config.json").write_text(json.dumps({**CLASS, **settings}, indent=2))
        weights = load_file(folder / "model.safetensors")
        if has_old_name:
            old = {dict([TIED]).get(key, key): value for key, value in weights.items()}
            save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
        save_file(expected(model, SamImageProcessorPil(**settings), shown), folder / "expected.safetensors")
