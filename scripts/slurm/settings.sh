# shellcheck shell=bash
# What the jobs of this folder share, sourced by each. Every value may be set in the environment of `chain.sh` or
# `sbatch`, which Slurm passes on; flags of the program too, as ONEACTOR_MODEL, ONEACTOR_VARIANT and so on.

# The program, and the folder of the run; both on a file system that all nodes see.
: "${PROGRAM:=oneactor}"
: "${RUN:=runs/hobbit}"
# What to draw first, and the word in it that names the subject.
: "${PROMPT:=a hobbit wearing robes}"
: "${SUBJECT:=hobbit}"
# The base image to learn: its number on grid.png, or the most typical one.
: "${TARGET:=auto}"
# A text file with a prompt on each line, and where their pictures go.
: "${SCENES:=scenes.txt}"
: "${SCENES_DIR:=$RUN/scenes}"
# Further flags of each command, parted by spaces.
: "${BASE_FLAGS:=}" "${TUNE_FLAGS:=}" "${SAMPLE_FLAGS:=}"
# How often a task whose program was killed is put back into the queue.
: "${RETRIES:=3}"

# Nodes of a cluster often have no network: the model must be in the cache (HF_HOME, on the shared file system) already.
export ONEACTOR_OFFLINE=${ONEACTOR_OFFLINE:-true}
# A hub that is not reached must not be waited for, and two threads of libtorch on one core are far slower than one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# Since Slurm 22.05 a step does not take this over from its job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Runs the program as tasks of a step, so that Slurm sends it SIGTERM before the time is up (--signal). When it was
# killed, by that or otherwise, the job is put back into the queue and goes on with what is missing: what depends on
# it waits meanwhile, as it would not for a job that has failed.
run() {
  local code=0
  srun --kill-on-bad-exit=0 "$PROGRAM" "$@" || code=$?
  if ((code > 128 && ${SLURM_RESTART_COUNT:-0} < RETRIES)); then
    echo "the program ended with $code: putting job $SLURM_JOB_ID back into the queue" >&2
    # Slurm ends this script meanwhile.
    scontrol requeue "$SLURM_JOB_ID" && sleep 300
  fi
  return "$code"
}
