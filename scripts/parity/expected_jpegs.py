"""JPEGs of many kinds, whole and damaged, and what Pillow reads from them.

`jpegs/NAME.jpg`            whole files
`jpegs/pixels.safetensors`  Pillow's pixels of each, by its name
`jpegs/damaged.json`        pieces of the files that are replaced by others (hexadecimal), and whether Pillow refuses
                            the result

Pillow refuses a file that is cut off anywhere; this script checks it at every length.
"""

import io
import json

import numpy as np
import torch
from PIL import Image

from expected_control import picture
from expected_models import save


def is_refused(data):
    try:
        Image.open(io.BytesIO(data)).convert("RGB")
        return False
    except Exception:  # Pillow raises many kinds for damaged files
        return True


def whole_files():
    """Names and contents."""
    image = Image.fromarray(picture(88, 120, 90))

    def encoded(image, **options):
        file = io.BytesIO()
        image.save(file, "jpeg", **{"quality": 88, **options})
        return file.getvalue()

    plain = encoded(image)
    end = b"\xff\xd9"
    assert plain.endswith(end)
    yield "plain", plain
    yield "444", encoded(image, subsampling=0, quality=97)
    yield "422", encoded(image, subsampling=1, optimize=True)
    yield "rgb", encoded(image, keep_rgb=True)
    yield "grey", encoded(image.convert("L"))
    yield "cmyk", encoded(image.convert("CMYK"))
    yield "flat", encoded(Image.new("RGB", (320, 240), (200, 30, 90)), optimize=True)
    yield "restarts", encoded(image, restart_marker_blocks=5)
    yield "progressive", encoded(image, progressive=True)
    yield "progressive_grey", encoded(image.convert("L"), progressive=True, quality=60)
    yield "progressive_restarts", encoded(image, progressive=True, restart_marker_rows=1, subsampling=0)
    yield "followed", plain + bytes(range(200))
    yield "padded", plain[:-2] + bytes(8) + end
    yield "filled", plain[:-2] + b"\xff\xff" + end


def damages(name, data, rng):
    """Stretches of zeros after the header, then damage of all kinds everywhere."""
    scan = data.index(b"\xff\xda") + 14
    stop = data.rindex(b"\xff\xd9")
    for length in (64, 200, 600):
        for start in range(scan, stop - length, max((stop - scan) // 12, 1)):
            yield start, length, bytes(length), True
    for number in range(60):
        start = int(rng.integers(2, stop))
        length = min(int(2 ** rng.uniform(0, 9)), stop - start)
        there = data[start : start + length]
        flipped = bytes([there[0] ^ 1 << int(rng.integers(0, 8))]) + there[1:]
        new = [flipped, b"\xff" * length, rng.integers(0, 256, length, np.uint8).tobytes(), b""][number % 4]
        yield start, length, new, False


def write(out):
    out.mkdir()
    rng = np.random.default_rng(91)
    pixels, damaged = {}, []
    for name, data in whole_files():
        (out / f"{name}.jpg").write_bytes(data)
        pixels[f"{name}.jpg"] = torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))
        end = data.rindex(b"\xff\xd9") + 2
        # If bytes follow the last code, Pillow does not notice a missing end mark.
        needed = end - 12 if name in ("padded", "filled") else end
        assert all(is_refused(data[:length]) for length in range(needed)), name
        for start, length, new, is_hole in damages(name, data, rng):
            refused = is_refused(data[:start] + new + data[start + length :])
            damaged.append(
                {
                    "file": f"{name}.jpg",
                    "start": start,
                    "length": length,
                    "new": new.hex(),
                    "hole": is_hole,
                    "refused": refused,
                }
            )
    save(out / "pixels.safetensors", pixels)
    (out / "damaged.json").write_text(json.dumps(damaged, indent=0))
    by_hole = [sum(each["refused"] for each in damaged if each["hole"] == hole) for hole in (True, False)]
    print(f"Pillow refuses {by_hole} of {len(damaged)} damaged JPEGs (holes of zeros, others)")
