#!/usr/bin/env bash
# Prepares this machine and runs every check: formatting, lints, documentation, dependencies, all tests. Once
# the packages are installed, only new advisories about the dependencies need the network. Arguments are
# passed to `cargo test`, for example: scripts/test.sh --test cli
. "$(dirname "$0")/environment.sh"

say "Python packages of the references"
install parity scripts/parity/requirements.txt
export ONEACTOR_PYTHON="$venv/bin/python"
# The download tests use a server on this machine, and no test may depend on a proxy or a token.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY "${!HF_@}"
# Two threads of libtorch beside another test are far slower than one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [ $# = 0 ]; then
  say "formatting, lints, documentation"
  cargo fmt --check
  cargo clippy --release --locked --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --quiet
  scripts/audit/check.sh

  say "Python and shell scripts"
  install lint scripts/lint/requirements.txt
  # Paths in ruff.toml are relative to the folder in which ruff is started.
  (cd scripts && ruff check --quiet --config ruff.toml . ../tests && ruff format --check --config ruff.toml . ../tests)
  shellcheck --external-sources --source-path=SCRIPTDIR .ci/run scripts/*.sh scripts/*/*.sh scripts/slurm/*.sbatch tests/*/*.sh
fi

say "expected values from diffusers and transformers, in target/parity"
"$ONEACTOR_PYTHON" scripts/parity/make_fixtures.py --out target/parity

say "the simulated GPU of tests/cuda, in target/fakecuda"
tests/fakecuda/build.sh

say "tests"
cargo test --release --locked --no-fail-fast "$@"

if [ $# = 0 ]; then
  say "benchmarks: their statistics, and a dry run of the GPU benchmark"
  # `cargo test` has already built the programs in the profile that the benchmarks use.
  "$ONEACTOR_PYTHON" -m unittest discover --quiet -s scripts/bench
  "$ONEACTOR_PYTHON" scripts/bench/gpu.py --dry-run >/dev/null

  say "the toy: its words compared with the guide's table, its world and measures, and a short judged run"
  "$ONEACTOR_PYTHON" -m unittest discover --quiet -s scripts/toy

  say "endurance: the checks for whole files, and a short run of each script"
  "$ONEACTOR_PYTHON" -m unittest discover --quiet -s scripts/endurance

  say "figures of the paper: a quick run of each on the toy"
  install reproduce scripts/reproduce/requirements.txt
  "$ONEACTOR_PYTHON" -m unittest discover --quiet -s scripts/reproduce
fi
