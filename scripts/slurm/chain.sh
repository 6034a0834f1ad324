#!/usr/bin/env bash
# Submits a whole run: base images, actor, scenes shared among the tasks of an array, and merging. Each job
# waits until the job before has succeeded. Prints the numbers of the jobs. Settings are environment
# variables: those of settings.sh, and
#   SBATCH    further flags of sbatch for all jobs, for instance "--partition=gpu --account=me"
#   SBATCH_SAMPLE  for the array alone, for instance "--ntasks=4" for four GPUs of a node in each task
# After a failure, run it again: finished work is not repeated.
set -euo pipefail
SCRIPTS=$(cd "$(dirname "$0")" && pwd)
export SCRIPTS
: "${SHARDS:=8}" "${SBATCH:=}" "${SBATCH_SAMPLE:=}"

# Inside a job, sbatch would pass on the job's own place in its array or step, and the program would take it
# as a part.
for name in "${!SLURM_ARRAY_@}" "${!SLURM_STEP@}" SLURM_PROCID SLURM_NTASKS SLURM_NPROCS; do unset "$name"; done

submit() { # name of the file, further flags of sbatch …
  local file=$SCRIPTS/$1.sbatch number
  shift
  # shellcheck disable=SC2086
  number=$(sbatch --parsable $SBATCH "$@" "$file")
  # With several clusters, the name of the cluster follows.
  echo "${number%%;*}"
}

base=$(submit base)
tune=$(submit tune --dependency="afterok:$base")
# shellcheck disable=SC2086
sample=$(submit sample --dependency="afterok:$tune" --array="0-$((SHARDS - 1))" $SBATCH_SAMPLE)
merge=$(submit merge --dependency="afterok:$sample")
echo "base $base"
echo "tune $tune"
echo "sample $sample"
echo "merge $merge"
