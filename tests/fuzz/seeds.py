"""Writes the first inputs for fuzzing, corpus/TARGET/*, and json.dict, the words of the JSON files. Both are made from
the files of this repository and, if they exist, from the parity fixtures (scripts/parity).

Needs Python 3.10 and no packages. Run it from anywhere: python tests/fuzz/seeds.py
"""

import contextlib
import json
import pathlib
import struct
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOY = ROOT / "src/io/toy"
PARITY = ROOT / "target/parity"
MOST = 64 << 10  # largest size of a seed, in bytes


def write(target: str, name: str, content: bytes | str) -> None:
    content = content.encode() if isinstance(content, str) else content
    if len(content) <= MOST:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def header(path: pathlib.Path) -> dict:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        # Some fixtures are damaged on purpose.
        return json.loads(file.read(length)) if length < 1 << 24 else {}


def safetensors(tensors: dict, metadata: dict) -> bytes:
    """A file of zeros; each tensor is given by its kind, bytes a value, and shape."""
    table, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, (kind, width, *shape) in tensors.items():
        size = width
        for side in shape:
            size *= side
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(end)


def lines(path: pathlib.Path) -> str:
    """The keys and shapes of a file, in the form that the targets `lora` and `single_file` read."""
    table = header(path)
    table.pop("__metadata__", None)
    return "\n".join(" ".join([key, *map(str, value["shape"])]) for key, value in table.items())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(texts: list[bytes], depth: int = 8, colour: int = 2) -> bytes:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = bytes(1 + 4 * channels * depth // 8)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, depth, colour, 0, 0, 0)),
            *texts,
            chunk(b"IDAT", zlib.compress(row * 3)),
            chunk(b"IEND", b""),
        ]
    )


def model_configs() -> None:
    """The first byte is the index of the file in the list of the target `model_config`."""
    kinds = {
        0: [TOY / "unet/config.json", *PARITY.glob("*/unet/config.json")],
        1: [TOY / "vae/config.json", *PARITY.glob("*/vae/config.json")],
        2: [TOY / "text_encoder/config.json", TOY / "text_encoder_2/config.json"],
        3: [TOY / "scheduler/scheduler_config.json", *PARITY.glob("*/scheduler/scheduler_config.json")],
        5: [TOY / "clip/preprocessor_config.json", *PARITY.glob("evaluate/*/preprocessor_config.json")],
        6: [*PARITY.glob("sam/**/preprocessor_config.json")],
        7: [*PARITY.glob("**/controlnet*/config.json"), *PARITY.glob("control*/**/config.json")],
        8: [*PARITY.glob("evaluate/*/config.json")],
        9: [*PARITY.glob("sam/**/config.json")],
        10: [TOY / "clip/config.json"],
    }
    for kind, paths in kinds.items():
        for number, path in enumerate(paths):
            write("model_config", f"{kind}-{number}", bytes([kind]) + path.read_bytes())
    for kind, text in [
        (
            6,
            (
                '{"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 64},'
                ' "pad_size": {"height": 64, "width": 64}}'
            ),
        ),
        (
            7,
            (
                '{"_class_name": "ControlNetModel", "in_channels": 4, "block_out_channels": [32, 64],'
                ' "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "layers_per_block": 1,'
                ' "attention_head_dim": 8, "cross_attention_dim": 16, "conditioning_embedding_out_channels": [16, 32]}'
            ),
        ),
        (
            8,
            (
                '{"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,'
                ' "mlp_ratio": 4, "image_size": 8, "patch_size": 4, "layer_norm_eps": 1e-6}'
            ),
        ),
        (
            9,
            (
                '{"model_type": "sam", "vision_config": {"hidden_size": 8, "num_attention_heads": 2, "image_size": 32,'
                ' "patch_size": 8, "num_hidden_layers": 1, "window_size": 2, "output_channels": 16,'
                ' "num_pos_feats": 8},'
                ' "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8},'
                ' "mask_decoder_config": {"hidden_size": 16, "num_attention_heads": 2}}'
            ),
        ),
    ]:
        write("model_config", f"{kind}-own", bytes([kind]) + text.encode())
    vocab = ["<|startoftext|>", "<|endoftext|>", "a", "c", "t", "a</w>", "t</w>", "at</w>", "cat</w>", "!</w>"]
    parts = [
        json.dumps({token: number for number, token in enumerate(vocab)}),
        "#version: 0.2\na t</w>\nc at</w>\n",
        (TOY / "tokenizer/special_tokens_map.json").read_text(),
        (TOY / "tokenizer/tokenizer_config.json").read_text(),
    ]
    write("model_config", "tokenizer", b"\x04" + "\0".join(parts).encode())


def batches() -> None:
    """The first byte is the index of the subcommand in the target `batch`."""
    commands = ["generate-base", "tune", "sample", "sweep", "ablate", "evaluate", "story"]
    for path in sorted((ROOT / "configs").glob("*.json")):
        kind = next((i for i, command in enumerate(commands) if command in path.stem), None)
        if kind is not None:
            write("batch", path.stem, bytes([kind]) + path.read_bytes())
    story = {
        "title": "t",
        "language": "en",
        "style": {"prompt": "a flat drawing", "subject": "drawing"},
        "characters": {
            "cat": {"prompt": "a red cat", "subject": "cat", "num_images": 3, "target": 1},
            "owl": {"actor": "owl.safetensors"},
        },
        "scenes": [{"prompt": "a [cat] and an [owl]", "caption": "c", "seed": 3}],
        "drawing": {"steps": 4, "width": 64, "height": 64},
    }
    write("batch", "story-own", b"\x06" + json.dumps(story).encode())


def prompts() -> None:
    texts = [
        "a cat",
        "a (red:1.3) cat, [dull] sky",
        r"a \(cat\)",
        "((cat)), [[dog]] (a (b:2) c)",
        "a cafe\u0301 \u732b!",
        "\U0001f431" * 9,
        "a\u0000cat",
        "un cafe\u0301\u0000caf\u00e9",
        " a  Pencil  Box. " * 20 + "\u0000pencil box",
    ]
    for path in sorted((ROOT / "prompts").rglob("*.txt")):
        texts += path.read_text().splitlines()[:4]
    for number, text in enumerate(texts):
        write("prompt_weights", str(number), text)
        for choice in (13, 15):
            write("tokenizer", f"{number}-{choice}", bytes([choice]) + text.encode())


def keys() -> None:
    stem = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    write(
        "lora",
        "peft",
        f"unet.{stem}.to_q.lora_A.weight 2 4\nunet.{stem}.to_q.lora_B.weight 4 2\n"
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight 2 4\n"
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight 8 2\0"
        '{"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 1}, "text_encoder.use_dora": false}',
    )
    flat = stem.replace(".", "_")
    write(
        "lora",
        "kohya",
        f"lora_unet_{flat}_to_q.lora_down.weight 2 4\nlora_unet_{flat}_to_q.lora_up.weight 4 2\n"
        f"lora_unet_{flat}_to_q.alpha\nlora_unet_input_blocks_0_0.lora_down.weight 2 4 3 3\n"
        "lora_unet_input_blocks_0_0.lora_up.weight 4 2 1 1",
    )
    write(
        "lora", "old", f"unet.{stem}.processor.to_q_lora.down.weight 2 4\nunet.{stem}.processor.to_q_lora.up.weight 4 2"
    )
    for path in sorted(PARITY.glob("lora/*.safetensors")):
        write("lora", path.stem, lines(path))
    write(
        "single_file",
        "few",
        "model.diffusion_model.input_blocks.0.0.weight 32 4 3 3\n"
        "model.diffusion_model.time_embed.0.weight 128 32\nmodel.diffusion_model.label_emb.0.0.weight 128 144\n"
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight 64 32\n"
        "first_stage_model.decoder.conv_in.weight 64 4 3 3",
    )
    for path in sorted(PARITY.glob("single/**/*.safetensors")):
        text = lines(path)
        if not text:
            continue
        write("single_file", path.stem, text)
        # Much smaller, so that mutations reach later code: all sizes of 32 and more are divided by 16.
        words = [line.split(" ") for line in text.splitlines()]
        small = [[w if not w.isdigit() or int(w) < 32 else str(int(w) // 16) for w in line] for line in words]
        write("single_file", path.stem + "-small", "\n".join(map(" ".join, small)))


def files() -> None:
    write(
        "safetensors",
        "small",
        safetensors(
            {"a": ("F32", 4, 2, 3), "b": ("F16", 2, 4), "c": ("BF16", 2, 0, 7), "d": ("I64", 8)}, {"format": "x"}
        ),
    )
    facts = {
        "format": "oneactor.actor/v1",
        "prompt": "a cat",
        "base_word": "cat",
        "width": "64",
        "height": "64",
        "model": "toy",
        "model_fingerprint": "00000000",
        "kind": "character",
        "target": "0",
        "head": "linear",
        "num_tokens": "1",
        "token_width": "4",
        "tokens_of_words": "[1]",
    }
    write("safetensors", "actor", safetensors({"encoder_features": ("F32", 4, 2, 4, 1, 1)}, facts))
    for path in sorted(ROOT.glob("target/fuzz-seeds/*.safetensors")):
        write("safetensors", path.stem, path.read_bytes())

    record = json.dumps(
        {
            "schema": "oneactor.image/v1",
            "version": "0.1.0",
            "parameters": {"prompt": "a cat", "seed": 3, "steps": 4},
            "facts": {"subject": ["cat"]},
        }
    )
    write("picture", "record", record)
    compressed = zlib.compress(record.encode())
    for name, texts in {
        "text": [chunk(b"tEXt", b"oneactor\0" + record.encode()), chunk(b"tEXt", b"parameters\0a cat\nSteps: 4")],
        "ztxt": [chunk(b"zTXt", b"oneactor\0\0" + compressed)],
        "itxt": [chunk(b"iTXt", b"oneactor\0\1\0\0\0" + compressed)],
    }.items():
        write("picture", name, png(texts))
    write("picture", "grey", png([], 16, 0))
    write("picture", "alpha", png([], 8, 6))
    for path in sorted(PARITY.glob("**/*.jp*g"))[:4]:
        write("picture", path.name, path.read_bytes())


def dictionary() -> None:
    """All keys and short texts of the JSON seeds, for libFuzzer's -dict."""
    words = set('{}[]:,"') | {"null", "true", "false", "1e9", "-1", "9223372036854775807"}

    def walk(value: object) -> None:
        if isinstance(value, dict):
            words.update(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, str) and len(value) < 40:
            words.add(value)

    for folder in ("batch", "model_config"):
        for path in (HERE / "corpus" / folder).iterdir():
            with contextlib.suppress(ValueError):
                walk(json.loads(path.read_bytes()[1:]))
    quoted = (json.dumps(word) for word in sorted(words) if word.isascii() and word.isprintable() and word)
    (HERE / "corpus/json.dict").write_text("".join(f"{word}\n" for word in quoted))


model_configs()
batches()
prompts()
keys()
files()
dictionary()
