#!/usr/bin/env python3
"""Runs chain.sh on a real Slurm on this machine, kills its processes, and compares with the results of one process.

    sudo scripts/slurm/test.py --program target/release/oneactor --work /tmp/slurm-test

Needs root on Debian (or a relative) and Python 3.9; installs slurmctld, slurmd, slurm-client and munge if they are
missing. Configuration, key, daemons, ports and files are in the folder --work: a Slurm that serves this machine is not
touched. Three nodes of two processors each are one slurmd each; their GPUs are device files that are never opened. The
embedded toy model draws.

While the array draws, a process of its first task is killed with SIGKILL, the step of the second task gets SIGTERM as
before its time limit, and the third task is requeued by `scontrol requeue`. Then every picture must be there, none
drawn twice, and the folders must be equal to those of one process: byte for byte, JSON except for the keys that
describe one process.
"""

import collections
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "endurance"))
from stages import options
from whole import broken_files, differences, files, is_temporary

HERE = Path(__file__).resolve().parent
PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]
NODES, SHARDS, TASKS = 3, 3, 2
PROMPTS = ["[b] in the snow", "[b] at the beach", "[b] at night"]
IMAGES_OF_EACH, STEPS = 8, 12
BASE_FLAGS = "--num-images 4 --steps 4"
TUNE_FLAGS = "--max-steps 12 --num-auxiliary 1"
SAMPLE_FLAGS = f"--num-images {IMAGES_OF_EACH} --steps {STEPS} --seed 5"
CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={work}/munge.socket
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={work}/slurmctld.pid
SlurmdPidFile={work}/slurmd-%n.pid
SlurmdSpoolDir={work}/spool-%n
StateSaveLocation={work}/state
SlurmctldLogFile={work}/slurmctld.log
SlurmdLogFile={work}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# So that the nodes together may have more processors than the machine.
SlurmdParameters=config_overrides
KillWait=5
# So that the first jobs are still known when the last one ends.
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} Port=[{first}-{last}] CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def say(text):
    print(f"== {text}", flush=True)


def sh(*words, **more):
    return subprocess.run(words, check=True, text=True, capture_output=True, **more).stdout


def wait_until(is_true, what, seconds=900):
    end = time.monotonic() + seconds
    while not (value := is_true()):
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return value


class Cluster:
    """Slurm in a folder."""

    def __init__(self, work, port):
        self.work, self.daemons = work, []
        host = socket.gethostname().split(".")[0]
        text = CONF.format(host=host, work=work, port=port, nodes=NODES, first=port + 1, last=port + NODES)
        (work / "slurm.conf").write_text(text)
        (work / "gres.conf").write_text(f"NodeName=n[1-{NODES}] Name=gpu File=/dev/null,/dev/zero\n")
        (work / "munge.key").write_bytes(os.urandom(128))
        (work / "munge.key").chmod(0o400)
        (work / "state").mkdir()
        os.environ["SLURM_CONF"] = str(work / "slurm.conf")

    def start(self):
        files = [
            f"--{name}={self.work}/munge.{name.split('-')[0]}"
            for name in ("key-file", "pid-file", "log-file", "seed-file", "socket")
        ]
        self.daemon("munged", "--foreground", "--force", *files)
        wait_until((self.work / "munge.socket").exists, "munged", 30)
        self.daemon("slurmctld", "-D")
        for node in range(1, NODES + 1):
            self.daemon("slurmd", "-D", "-N", f"n{node}")
        wait_until(lambda: self.idle() == NODES, "the nodes are idle", 120)

    def daemon(self, *words):
        output = open(self.work / f"{words[0]}.out", "a")  # noqa: SIM115 (it is the daemon's)
        self.daemons.append(subprocess.Popen(words, stdout=output, stderr=output))

    def idle(self):
        listed = subprocess.run(["sinfo", "-hN", "-o", "%t"], text=True, capture_output=True, check=False)
        return listed.stdout.split().count("idle")

    def stop(self):
        subprocess.run(["scancel", "--user=root"], capture_output=True, check=False)
        # A slurmd with a running task does not end, and without the other daemons has nobody to report to.
        end = time.monotonic() + 60
        while time.monotonic() < end and subprocess.run(["squeue", "-h"], capture_output=True, check=False).stdout:
            time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def install():
    missing = [
        name for name in PACKAGES if subprocess.run(["dpkg", "-s", name], capture_output=True, check=False).returncode
    ]
    if missing:
        say(f"installing {' '.join(missing)}")
        sh("apt-get", "update")
        sh(
            "apt-get",
            "install",
            "--yes",
            "--no-install-recommends",
            *missing,
            env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"),
        )


def settings(program):
    return dict(
        os.environ,
        PROGRAM=str(program),
        RUN="robot",
        PROMPT="a photo of a robot",
        SUBJECT="robot",
        TARGET="1",
        SCENES="scenes.txt",
        SCENES_DIR="scenes",
        BASE_FLAGS=BASE_FLAGS,
        TUNE_FLAGS=TUNE_FLAGS,
        SAMPLE_FLAGS=SAMPLE_FLAGS,
        ONEACTOR_MODEL="toy",
        OMP_NUM_THREADS="1",
        SHARDS=str(SHARDS),
        SBATCH="--mem=600 --cpus-per-task=1 --output=logs/%x-%A_%a",
        SBATCH_SAMPLE=f"--ntasks={TASKS}",
    )


def new_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    (path / "logs").mkdir(parents=True)
    (path / "scenes.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    return path


def whole_run(program, folder):
    """The same commands by one process each, without Slurm."""
    environment = settings(program)
    for line in (
        f"generate-base -p|a photo of a robot|--subject robot -o robot {BASE_FLAGS}",
        f"tune robot --target 1 {TUNE_FLAGS}",
        f"sample robot --prompts-file scenes.txt -o scenes {SAMPLE_FLAGS}",
    ):
        first, *prompt = line.split("|")
        words = first.split() + (prompt[:1] + prompt[1].split() if prompt else [])
        sh(program, *words, cwd=folder, env=environment)


def processes(job, task, rank):
    """Ids of the program's processes that Slurm has started as `rank` of a task of the array."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(
                entry.split(b"=", 1) for entry in (folder / "environ").read_bytes().split(b"\0") if b"=" in entry
            )
            is_program = b"sample" in (folder / "cmdline").read_bytes().split(b"\0")[1:2]
        except OSError:
            continue
        wanted = {b"SLURM_ARRAY_JOB_ID": job, b"SLURM_ARRAY_TASK_ID": task, b"SLURM_PROCID": rank}
        if is_program and all(environment.get(key) == str(value).encode() for key, value in wanted.items()):
            found.append(int(folder.name))
    return found


def pictures(folder):
    """Each finished picture, with a stamp that changes if the picture is drawn again."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files(folder)
        if path.suffix == ".png" and path.name != "grid.png" and not is_temporary(path)
    }


def disturb(folder, job):
    """Kills a part of each task of the array once that part has drawn a picture; returns the pictures finished by
    then."""
    finished = {}
    parts = SHARDS * TASKS
    for task in range(SHARDS):
        # Rank 0 of the task is part task * TASKS of all parts: its pictures are those whose number has that remainder.
        own = [f"{index:04}-" for index in range(len(PROMPTS) * IMAGES_OF_EACH) if index % parts == task * TASKS]
        is_drawn = lambda: any(path.name.startswith(tuple(own)) for path in (folder / "scenes").glob("*.png"))
        wait_until(is_drawn, f"task {task} has drawn a picture")
        running = processes(job, task, 0)
        if not running:
            sys.exit(f"task {task} was done before it could be killed: raise IMAGES_OF_EACH or STEPS")
        finished.update(pictures(folder / "scenes"))
        if task == 0:
            say(f"task 0: kill -KILL {running[0]}")
            os.kill(running[0], 9)
        elif task == 1:
            say(f"task 1: scancel --signal=TERM {job}_1.0")
            sh("scancel", "--signal=TERM", f"{job}_1.0")
        else:
            say(f"task 2: scontrol requeue {job}_2")
            sh("scontrol", "requeue", f"{job}_2")
    return finished


def states(jobs):
    listed = sh("scontrol", "show", "job", "--oneliner")
    rows = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in listed.splitlines()]
    return [row for row in rows if row.get("ArrayJobId", row.get("JobId")) in jobs]


def ended(jobs):
    """The states of the jobs, once all have ended or one can never end. Requeued jobs start at once; Slurm would wait
    two minutes."""
    time.sleep(1)
    rows = states(jobs)
    for row in rows:
        if row["JobState"] == "PENDING" and row["Reason"] == "BeginTime":
            job = f"{row['ArrayJobId']}_{row['ArrayTaskId']}" if "ArrayJobId" in row else row["JobId"]
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True, check=False)
    is_open = any(row["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED") for row in rows)
    is_stuck = any(row.get("Reason") == "DependencyNeverSatisfied" for row in rows)
    return rows if is_stuck or not is_open else None


def judge(folder, reference, finished, rows):
    trouble = [
        f"job {row['JobId']} of {row['JobName']} ended as {row['JobState']}"
        for row in rows
        if row["JobState"] != "COMPLETED"
    ]
    restarts = [row["Restarts"] for row in rows if row["JobName"] == "oneactor-sample"]
    if restarts != ["1"] * SHARDS:
        trouble.append(f"the tasks were restarted {restarts} times, expected once each")
    for name in ("robot", "scenes"):
        trouble += broken_files(folder / name) + differences(folder / name, reference / name)
    now = pictures(folder / "scenes")
    trouble += [f"{path} was drawn twice" for path, stamp in finished.items() if now.get(path) != stamp]
    told = collections.Counter(
        line
        for log in (folder / "logs").glob("oneactor-sample-*")
        for line in log.read_text(errors="replace").splitlines()
        if line.endswith(".png")
    )
    trouble += [f"the logs have {path} {times} times" for path, times in told.items() if times > 1]
    starts = [int(times) + 1 for times in restarts]
    print(
        f"{len(now)} pictures, expected {len(PROMPTS) * IMAGES_OF_EACH}; there before a kill: {len(finished)}; "
        f"in the logs: {len(told)}; starts of the tasks: {starts}"
    )
    return trouble


def main():
    parser = options(__doc__)
    parser.add_argument("--port", type=int, default=26900, help="the first of four ports of this machine")
    flags = parser.parse_args()
    program, work = flags.program.resolve(), flags.work.resolve()
    if os.geteuid() != 0:
        sys.exit("the daemons start tasks for their users: run this as root")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    install()
    say(sh("slurmctld", "-V").strip())
    say("one process")
    reference, folder = new_folder(work / "one"), new_folder(work / "slurm")
    whole_run(program, reference)
    cluster = Cluster(work, flags.port)
    try:
        cluster.start()
        say("chain.sh")
        output = sh(HERE / "chain.sh", cwd=folder, env=settings(program))
        jobs = dict(line.split() for line in output.splitlines())
        print(output, end="")
        finished = disturb(folder, jobs["sample"])
        rows = wait_until(lambda: ended(jobs.values()), "the chain ends")
    finally:
        cluster.stop()
    trouble = judge(folder, reference, finished, rows)
    print("\n".join(trouble) if trouble else "equal to one process's run")
    sys.exit(1 if trouble else 0)


if __name__ == "__main__":
    main()
