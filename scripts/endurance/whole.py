"""Whether files are whole, and whether two folders hold the same results. Used by the other scripts here. Needs Python
3.9 and no packages: a library might tolerate damage that must be found."""

import json
import struct
import zlib
from pathlib import Path

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class Broken(Exception):
    """A file that is not whole."""


def check_png(data):
    """Checks the signature, the CRC of every chunk, IEND at the end, and the number of pixel bytes that the header
    states."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Broken("no PNG signature")
    at, pixels, kind, header = 8, b"", b"", None
    while at < len(data):
        if at + 12 > len(data):
            raise Broken(f"a chunk is cut at byte {at}")
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        crc = data[at + 8 + length : at + 12 + length]
        if len(body) < length or crc != struct.pack(">I", zlib.crc32(kind + body)):
            raise Broken(f"chunk {kind} at byte {at} has a wrong CRC or is cut")
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            pixels += body
        at += 12 + length
    if kind != b"IEND" or header is None:
        raise Broken("no IEND at the end")
    width, height, depth, colour = header[:4]
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    if len(zlib.decompress(pixels)) != row * height:
        raise Broken("too few pixels")


def check_safetensors(data):
    """Checks that the header parses, its tensors follow each other without gaps, and the file ends with the last
    one."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    end = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = tensor["data_offsets"]
        size = WIDTHS[tensor["dtype"]]
        for side in tensor["shape"]:
            size *= side
        if first != end or last - first != size:
            raise Broken(f"tensor {name} is at {first} to {last}, expected {size} bytes from {end}")
        end = last
    if 8 + length + end != len(data):
        raise Broken(f"{len(data)} bytes, expected {8 + length + end}")


def check_lines(data):
    """Checks that every line is JSON and the last one ends with a newline."""
    if data and not data.endswith(b"\n"):
        raise Broken("the last line does not end")
    for line in data.splitlines():
        json.loads(line)


CHECKS = {".png": check_png, ".safetensors": check_safetensors, ".json": json.loads, ".jsonl": check_lines}


def is_temporary(path):
    """Whether the file has one of the hidden names under which files are written."""
    return path.name.startswith(".") and path.name.endswith(".part")


def is_lock(path):
    """Whether the file is the lock of a folder, which a killed process leaves and the next process in the folder
    removes."""
    return path.name.startswith(".oneactor") and path.name.endswith(".lock")


def files(folder):
    """All files below a folder, sorted; files that vanish meanwhile are left out."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def temporaries(folder):
    return [path for path in files(folder) if is_temporary(path)]


def broken_files(folder):
    """A message for each file under its final name that is not whole."""
    found = []
    for path in files(folder):
        if is_temporary(path) or is_lock(path):
            continue
        try:
            if path.suffix not in CHECKS:
                raise Broken("an unexpected file")
            CHECKS[path.suffix](path.read_bytes())
        except (Broken, ValueError, KeyError, struct.error, zlib.error) as error:
            found.append(f"{path}: {error}")
    return found


# Keys that describe the last process only: its seconds, and how many base images it drew.
OF_THE_PROCESS = {"seconds", "images_drawn"}


def without_times(value):
    """The value without the keys that differ between runs."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in OF_THE_PROCESS}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def content(path):
    """The content that must be equal: all bytes, for JSON without the keys that describe one process."""
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in data.splitlines()]
    return without_times(json.loads(data)) if path.suffix == ".json" else data


def differences(folder, reference):
    """A message for each file that one folder lacks or that differs; temporary files are ignored."""
    names = {}
    for root in (folder, reference):
        names[root] = {str(path.relative_to(root)) for path in files(root) if not is_temporary(path)}
    found = [f"{folder}/{name}: only there" for name in sorted(names[folder] - names[reference])]
    found += [f"{folder}/{name}: missing" for name in sorted(names[reference] - names[folder])]
    for name in sorted(names[folder] & names[reference]):
        if content(Path(folder, name)) != content(Path(reference, name)):
            found.append(f"{folder}/{name}: differs from {reference}/{name}")
    return found
