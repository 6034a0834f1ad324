"""Checks of the code that decides whether a file is whole, two folders are equal, and memory is flat; that a program
which leaves half a file behind is detected; and a short run of each script on the toy.

Needs the program in target/release. The test of the full disk needs Linux and the right to mount, and is skipped
otherwise.

Usage: python -m unittest discover -s scripts/endurance
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib
from argparse import Namespace
from pathlib import Path

import full_disk
import interrupt
import many
import stages
import whole

HERE = Path(__file__).resolve().parent
BINARY = HERE.parents[1] / "target/release/oneactor"

# Writes half of its file, waits, and writes the whole file: a kill during the wait leaves a half-written file.
CARELESS = """#!{python}
import pathlib, time
pathlib.Path("base.json").write_text('{{"robot": ')
time.sleep(0.7)
pathlib.Path("base.json").write_text('{{"robot": 1}}')
"""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows=2):
    """A PNG of 3 by 2 pixels, RGB."""
    head = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + 3 * 3) * rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def safetensors(first=0, spare=0):
    tensors = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [first, first + 8]},
        "b": {"dtype": "U8", "shape": [3], "data_offsets": [first + 8, first + 11]},
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(first + 11 + spare)


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def script(self, name, *words):
        """Exit code and output of a script, with a folder of its own."""
        command = [sys.executable, HERE / name, "--work", self.folder / "work", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


class Whole(InFolder):
    def refuses(self, check, data):
        with self.assertRaises((whole.Broken, ValueError, struct.error, zlib.error)):
            check(data)

    def test_a_picture_is_whole_with_all_its_chunks_and_pixels(self):
        whole.check_png(png())
        for length in range(len(png())):
            self.refuses(whole.check_png, png()[:length])
        for place in range(8, len(png())):
            data = bytearray(png())
            data[place] ^= 1
            self.refuses(whole.check_png, bytes(data))
        self.refuses(whole.check_png, png(rows=1))

    def test_tensors_are_whole_when_they_fill_the_file_without_gaps(self):
        whole.check_safetensors(safetensors())
        for length in range(len(safetensors())):
            self.refuses(whole.check_safetensors, safetensors()[:length])
        self.refuses(whole.check_safetensors, safetensors(spare=1))
        self.refuses(whole.check_safetensors, safetensors(first=1))

    def test_lines_are_whole_when_each_is_json_and_the_last_one_ends(self):
        whole.check_lines(b"")
        whole.check_lines(b'{"a": 1}\n{"a": 2}\n')
        self.refuses(whole.check_lines, b'{"a": 1}\n{"a": 2}')
        self.refuses(whole.check_lines, b'{"a": 1}\n{"a":\n')

    def test_files_that_are_not_whole_or_not_expected_are_named(self):
        self.write("base/00.png", png())
        self.write("base/01.png", png()[:-1])
        self.write("notes.doc", "?")
        self.write(".02.png.17.part", png()[:9])
        self.write(".oneactor.lock", "")
        self.write(".oneactor-1.lock", "")
        found = [line.partition(":")[0] for line in whole.broken_files(self.folder)]
        self.assertEqual(found, [str(self.folder / "base/01.png"), str(self.folder / "notes.doc")])
        self.assertEqual(whole.temporaries(self.folder), [self.folder / ".02.png.17.part"])

    def test_folders_are_equal_except_for_keys_of_one_process(self):
        for side, seconds in (("ours", 1.5), ("theirs", 2.5)):
            self.write(
                f"{side}/a.json", json.dumps({"runs": [{"seconds": seconds, "seed": 3}], "images_drawn": seconds})
            )
            self.write(f"{side}/a.jsonl", json.dumps({"seconds": seconds, "seed": 3}) + "\n")
            self.write(f"{side}/same.png", png())
        self.write("ours/.same.png.5.part", "")
        sides = self.folder / "ours", self.folder / "theirs"
        self.assertEqual(whole.differences(*sides), [])
        self.write("ours/a.jsonl", json.dumps({"seconds": 1, "seed": 4}) + "\n")
        self.write("ours/same.png", png() + b" ")
        self.write("ours/more.png", png())
        self.write("theirs/lost.png", png())
        found = [line.partition(f"{sides[0]}/")[2].partition(" from")[0] for line in whole.differences(*sides)]
        expected = ["more.png: only there", "lost.png: missing", "a.jsonl: differs", "same.png: differs"]
        self.assertEqual(found, expected)


class Stages(InFolder):
    def test_the_folder_before_a_stage_is_made_once(self):
        program = self.write("count", '#!/bin/sh\necho "$1" >>commands.jsonl\n')
        program.chmod(0o755)
        flags = Namespace(program=program, work=self.folder / "work", tune_steps=1, seed=0)
        stages.set_up(flags)
        before, after, seconds = stages.prepare(flags, "merge")
        of_tune = stages.prepare(flags, "tune")[1]
        words = lambda folder: (folder / "commands.jsonl").read_text().split()
        self.assertEqual(words(before), ["generate-base", "tune", "sample", "sample"])
        self.assertEqual(words(after), [*words(before), "merge"])
        self.assertEqual(words(of_tune), ["generate-base", "tune"])
        self.assertEqual(len(list(flags.work.iterdir())), 6)
        self.assertGreater(seconds, 0)

    def test_an_aimed_kill_waits_for_a_new_temporary_file(self):
        self.write(".old.png.1.part", "")
        waiting = Namespace(poll=lambda: None)
        for is_aimed, least, most in ((True, 0.05, 0.9), (False, 1.0, 5.0)):
            threading.Timer(0.1, self.write, (f".{is_aimed}.png.2.part", "")).start()
            begin = time.monotonic()
            interrupt.wait_for_moment(self.folder, [waiting], 1.0, is_aimed)
            self.assertTrue(least <= time.monotonic() - begin < most, is_aimed)

    def test_waiting_stops_when_all_processes_have_ended(self):
        begin = time.monotonic()
        interrupt.wait_for_moment(self.folder, [Namespace(poll=lambda: 0)], 5.0, False)
        self.assertLess(time.monotonic() - begin, 1.0)

    def test_a_disk_holds_whole_pages(self):
        self.assertEqual(full_disk.needed(self.folder), 0)
        for name, size in (("a", 1), ("b", 4096), ("c/d", 4097)):
            self.write(name, bytes(size))
        self.assertEqual(full_disk.needed(self.folder), 4 * 4096)


class Memory(unittest.TestCase):
    def judged(self, sizes, descriptors):
        return many.judged(
            [(i, float(i), size, open_files) for i, (size, open_files) in enumerate(zip(sizes, descriptors))]
        )

    def test_a_peak_in_the_middle_and_a_file_being_written_are_no_growth(self):
        text, is_passed = self.judged([100, 101, 900, 900, 900, 900, 101, 100], [3, 4, 3, 3, 9, 9, 4, 3])
        self.assertTrue(is_passed, text)

    def test_memory_that_grows_by_more_than_the_tolerance_fails(self):
        for last, expected in ((1019, True), (1021, False), (979, False)):
            _, is_passed = self.judged([1000] * 6 + [last] * 2, [3] * 8)
            self.assertEqual(is_passed, expected, last)

    def test_a_file_that_is_never_closed_fails(self):
        text, is_passed = self.judged([100] * 8, [3, 3, 3, 4, 4, 4, 4, 5])
        self.assertFalse(is_passed)
        self.assertIn("(+0.00%, at most 2% allowed)", text)
        self.assertTrue(text.endswith("descriptors: 3 and 4"), text)


class Scripts(InFolder):
    def test_a_program_that_leaves_half_a_file_is_detected(self):
        program = self.write("careless", CARELESS.format(python=sys.executable))
        program.chmod(0o755)
        how = ["--stages", "generate-base", "--kills", "2", "--kills-per-round", "1"]
        code, output = self.script("interrupt.py", "--program", program, *how)
        self.assertEqual(code, 1, output)
        self.assertRegex(output, "after SIG(KILL|TERM): .*base.json: Expecting value")

    def test_the_program_continues_after_kills(self):
        how = ["--stages", "generate-base", "--kills", "2", "--kills-per-round", "2"]
        code, output = self.script("interrupt.py", "--program", BINARY, *how)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"^generate-base: \d SIGKILL, \d SIGTERM in \d+ rounds; .*trouble: 0\n$")

    def test_every_picture_of_a_long_run_is_watched(self):
        # Eight pictures are too few to judge growth, so the verdict is not checked.
        _, output = self.script("many.py", "--program", BINARY, "--pictures", "8", "--steps", "1")
        self.assertRegex(output, r"^8 pictures in \d+ s; memory over the first 2: \d+\.\d MiB")
        rows = (self.folder / "work/memory.csv").read_text().splitlines()
        self.assertEqual(rows[0], "picture,seconds,bytes,descriptors")
        numbers = [[float(cell) for cell in row.split(",")] for row in rows[1:]]
        self.assertEqual([row[0] for row in numbers], list(range(1, 9)))
        self.assertGreater(min(row[2] for row in numbers), 50 * 2**20)
        self.assertGreaterEqual(min(row[3] for row in numbers), 3)

    def test_a_full_disk_ends_a_run_with_one_line(self):
        self.require_mount()
        how = ["--stages", "generate-base", "--sizes", "1"]
        code, output = self.script("full_disk.py", "--program", BINARY, *how)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"generate-base, \d+ bytes: error: .*No space left on device")

    def require_mount(self):
        folder = self.folder / "disk"
        try:
            if os.geteuid() != 0:
                raise PermissionError("not root")
            with full_disk.Disk(folder, full_disk.PAGE):
                pass
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"a file system of a given size needs the right to mount: {error}")


if __name__ == "__main__":
    unittest.main()
