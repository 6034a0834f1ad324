# shellcheck shell=bash
# Settings that the jobs of this folder share; each job sources this file. Every value can be set in the
# environment of `chain.sh` or `sbatch`, which Slurm passes on; so can flags of the program: ONEACTOR_MODEL,
# ONEACTOR_VARIANT and so on.

# The program, and the folder of the run; both on a file system that all nodes share.
: "${PROGRAM:=oneactor}"
: "${RUN:=runs/hobbit}"
# The prompt of the base images, and the word in the prompt that names the subject.
: "${PROMPT:=a hobbit wearing robes}"
: "${SUBJECT:=hobbit}"
# The base image to learn: its number on grid.png, or `auto` for the most typical image.
: "${TARGET:=auto}"
# A text file with one prompt on each line, and the folder for their pictures.
: "${SCENES:=scenes.txt}"
: "${SCENES_DIR:=$RUN/scenes}"
# Further flags of each command, separated by spaces.
: "${BASE_FLAGS:=}" "${TUNE_FLAGS:=}" "${SAMPLE_FLAGS:=}"
# How often a task whose program was killed is requeued.
: "${RETRIES:=3}"

# Nodes of a cluster often have no network: the model must already be in the cache (HF_HOME, on the shared
# file system).
export ONEACTOR_OFFLINE=${ONEACTOR_OFFLINE:-true}
# Do not wait for an unreachable hub. Two threads of libtorch on one core are far slower than one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# Since Slurm 22.05 a step does not inherit this from its job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Runs the program as tasks of a step, so that Slurm sends it SIGTERM before the time limit (--signal). If the
# program was killed, by this signal or another, the job is requeued and continues with the missing results.
# Jobs that depend on a requeued job keep waiting; they would not wait for a failed job.
run() {
  local code=0
  srun --kill-on-bad-exit=0 "$PROGRAM" "$@" || code=$?
  if ((code > 128 && ${SLURM_RESTART_COUNT:-0} < RETRIES)); then
    echo "the program ended with $code: putting job $SLURM_JOB_ID back into the queue" >&2
    # Slurm ends this script during the sleep.
    scontrol requeue "$SLURM_JOB_ID" && sleep 300
  fi
  return "$code"
}
