#!/usr/bin/env bash
# Submits a whole run: base images, actor, scenes shared among an array, and their merging; each waits until the one
# before has succeeded. Prints the jobs' numbers. Settings: the environment, see settings.sh, and
#   SHARDS    tasks of the array (8)
#   SBATCH    further flags of sbatch for all jobs, for instance "--partition=gpu --account=me"
#   SBATCH_SAMPLE  for the array alone, for instance "--ntasks=4" for four GPUs of a node in each task
# Run it again after a failure: what is there already is not done again.
set -euo pipefail
SCRIPTS=$(cd "$(dirname "$0")" && pwd)
export SCRIPTS
: "${SHARDS:=8}" "${SBATCH:=}" "${SBATCH_SAMPLE:=}"

# From within a job: sbatch passes that job's own place in its array or step on, which would be taken for a part.
for name in "${!SLURM_ARRAY_@}" "${!SLURM_STEP@}" SLURM_PROCID SLURM_NTASKS SLURM_NPROCS; do unset "$name"; done

submit() { # name of the file, further flags of sbatch …
  local file=$SCRIPTS/$1.sbatch number
  shift
  # shellcheck disable=SC2086
  number=$(sbatch --parsable $SBATCH "$@" "$file")
  # With several clusters the name of one follows.
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
