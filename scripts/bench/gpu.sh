#!/usr/bin/env bash
# Runs gpu.py on a machine that may have no network: from a Python that has torch 2.11, and a folder of wheels with the
# rest. On a machine with network the folder is made by
#
#   python3 -m pip download --no-deps --only-binary=:all: -r scripts/bench/requirements.txt -d WHEELS
#
# with the same version of Python, and the binaries by `cargo build --release --locked --bins --examples`
# (target/release/oneactor and target/release/examples/bench_server; ONEACTOR_RELEASE names another folder).
#
# Usage: gpu.sh WHEELS|- [arguments of gpu.py]      - : diffusers is there already
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/p}' "$0" >&2; exit 2; }
wheels=$1
shift
python=${ONEACTOR_PYTHON:-python3}
root=$here/../..
if [ "$wheels" != - ]; then
  # Beside the machine's own packages, never in them.
  packages=$root/target/bench-packages
  "$python" -m pip install --quiet --no-index --no-deps --upgrade --find-links "$wheels" --target "$packages" \
    -r "$here/requirements.txt"
  export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
# The binaries were linked on another machine, whose path to libtorch means nothing here.
libtorch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
export LD_LIBRARY_PATH="$libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" "$here/gpu.py" "$@"
