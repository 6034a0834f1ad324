#!/usr/bin/env python3
"""Runs the commands of the manifests here as a cluster would, but as processes on this machine and with the toy, and
compares the results.

    pip install PyYAML
    scripts/kubernetes/test.py --program target/release/oneactor --work /tmp/kubernetes-test

Starts the commands of the containers with the arguments of the files, with JOB_COMPLETION_INDEX for each index and
Argo's parameters filled in. /runs is a folder in --work, and the toy replaces SDXL. Then the folders of the Jobs and of
the Workflow must be equal to those of one process: byte for byte, JSON except for the keys that describe one process.
No cluster is used, so volumes, GPUs, users and restarts are not tested.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "endurance"))
from whole import broken_files, differences, files

HERE = Path(__file__).resolve().parent
PROMPTS = ["[b] in the snow", "[b] at the beach", "[b] at night"]
# Makes a run take a minute; the manifests use the defaults.
SHORT = {
    "generate-base": ["--model", "toy", "--num-images", "4", "--steps", "4"],
    "tune": ["--max-steps", "12", "--num-auxiliary", "1"],
    "sample": ["--num-images", "4", "--steps", "8", "--seed", "5"],
    "merge": [],
}


class Cluster:
    """Runs the commands of the containers one after the other, with /runs in a folder."""

    def __init__(self, program, folder):
        self.program, self.folder = Path(program).resolve(), Path(folder)
        (self.folder / "runs").mkdir(parents=True)
        (self.folder / "runs/scenes.txt").write_text("\n".join(PROMPTS) + "\n")
        self.started = []

    def start(self, container, variables=None):
        words = list(container.get("command", ["oneactor"])) + list(container.get("args", []))
        if words[:2] == ["sh", "-c"]:
            # The shell's own arithmetic, on the line of the file.
            shown = subprocess.run(
                ["sh", "-c", words[2].replace("exec oneactor", "printf '%s\\n'")],
                env=variables,
                check=True,
                capture_output=True,
                text=True,
            )
            words = ["oneactor", *shown.stdout.splitlines()]
        if words[0] != "oneactor":
            sys.exit(f"{words}: expected the program")
        words = [word.replace("/runs", "runs") for word in words[1:]]
        # The toy has no half precision.
        words = [word for word in words if word not in ("--variant=fp16", "--variant", "fp16")]
        self.started.append(words)
        command = [self.program, *words, *SHORT[words[0]], "--quiet"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"{command}\n{done.stderr}")


def documents(name):
    return list(yaml.safe_load_all((HERE / name).read_text()))


def run_jobs(cluster):
    for job in documents("run.yaml") + documents("scenes.yaml") + documents("merge.yaml"):
        if job["kind"] != "Job":
            continue
        pod = job["spec"]["template"]["spec"]
        for index in range(job["spec"].get("completions", 1)):
            for container in pod.get("initContainers", []) + pod["containers"]:
                cluster.start(container, {"JOB_COMPLETION_INDEX": str(index)})


def run_workflow(cluster):
    spec = documents("workflow.yaml")[0]["spec"]
    templates = {template["name"]: template for template in spec["templates"]}
    values = {f"workflow.parameters.{p['name']}": p["value"] for p in spec["arguments"]["parameters"]}

    def filled(value, more):
        if isinstance(value, list):
            return [filled(inner, more) for inner in value]
        return re.sub(r"{{(.*?)}}", lambda match: {**values, **more}[match[1]], value)

    for group in templates[spec["entrypoint"]]["steps"]:
        for step in group:
            sequence = step.get("withSequence")
            items = (
                range(int(filled(sequence["start"], {})), int(filled(sequence["end"], {})) + 1) if sequence else [None]
            )
            for item in items:
                given = step.get("arguments", {}).get("parameters", [])
                inputs = {f"inputs.parameters.{p['name']}": filled(p["value"], {"item": str(item)}) for p in given}
                container = templates[step["template"]]["container"]
                cluster.start({key: filled(container[key], inputs) for key in ("command", "args")})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/oneactor")
    parser.add_argument("--work", required=True, help="a folder that is not there yet")
    options = parser.parse_args()
    work = Path(options.work).resolve()
    jobs, workflow, alone = (Cluster(options.program, work / name) for name in ("jobs", "workflow", "alone"))
    run_jobs(jobs)
    run_workflow(workflow)
    for words in workflow.started[:2]:
        alone.start({"args": [word.replace("runs/", "/runs/", 1) for word in words]})
    alone.start(
        {"args": ["sample", "/runs/hobbit", "--prompts-file", "/runs/scenes.txt", "--output-dir", "/runs/scenes"]}
    )
    parts = [sum("--shard" in " ".join(words) for words in cluster.started) for cluster in (jobs, workflow)]
    found = differences(jobs.folder / "runs", alone.folder / "runs")
    # The Workflow puts the scenes into the folder of the run.
    found += differences(workflow.folder / "runs/hobbit/scenes", alone.folder / "runs/scenes")
    found += differences(workflow.folder / "runs/hobbit/base", alone.folder / "runs/hobbit/base")
    whole = [path for path in broken_files(work) if not path.split(":")[0].endswith(".txt")]
    print(f"{parts[0]} and {parts[1]} parts, {len(files(alone.folder / 'runs/scenes'))} files of scenes")
    for line in found + whole:
        print(line)
    sys.exit(1 if found or whole or parts != [8, 8] else 0)


if __name__ == "__main__":
    main()
