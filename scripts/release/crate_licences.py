"""Prints the licences of all Rust crates that the program is built from: name, version, licence, texts.

Needs only cargo, whose sources of the crates it reads. Each text is printed once, with the names of all its crates.
"""

import json
import subprocess
import sys
from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"
NAMES = ("license", "licence", "copying", "notice", "unlicense", "copyright")


def crates() -> list[dict]:
    """The data of `cargo metadata` about the crates that the program depends on, by name; crates used only by tests are
    left out."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    tree = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in tree["packages"]}
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    root = tree["resolve"]["root"]
    found, waiting = set(), [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if kinds != {"dev"} and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return sorted((packages[crate] for crate in found), key=lambda crate: (crate["name"], crate["version"]))


def texts(crate: dict) -> list[str]:
    """The licence texts in the crate's folder."""
    folder = Path(crate["manifest_path"]).parent
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.lower().startswith(NAMES)]
    if crate.get("license_file"):
        named = folder / crate["license_file"]
        files += [named] if named.is_file() and named not in files else []
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def main() -> None:
    owners: dict[str, list[str]] = {}
    print("Rust crates in this program\n")
    for crate in crates():
        name = f"{crate['name']} {crate['version']}"
        found = texts(crate)
        for text in found:
            owners.setdefault(text, []).append(name)
        where = "" if found else f" (no text in the crate, see {crate.get('repository')})"
        print(f"{name}: {crate.get('license') or 'see its text'}{where}")
    for text, names in owners.items():
        print(f"\n{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n\n{text}")


if __name__ == "__main__":
    sys.exit(main())
