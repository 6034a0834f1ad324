#!/usr/bin/env bash
# Runs gpu.py on a machine that may have no network: from a Python that has torch 2.11, a folder of wheels with what else it
# lacks, and the two programs.
#
# On a machine with network the whole peer is fetched by
#
#   python3 -m pip download --no-deps --only-binary=:all: -r scripts/bench/requirements.txt -d WHEELS
#
# with the same version of Python. For another one, and only what it lacks, the versions are those of requirements.txt:
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d WHEELS \
#     diffusers==0.42.1 importlib-metadata==10.2.0 zipp==4.1.2
#
# The programs are made by `cargo build --release --locked --bins --examples`; ONEACTOR_RELEASE names their folder where it is
# not target/release, or an archive of both, which takes a third of the room:
#
#   XZ_OPT=-9 tar -cJf oneactor.tar.xz -C target/release oneactor examples/bench_server
#
# Usage: gpu.sh WHEELS|- [arguments of gpu.py]      - : nothing is lacking
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
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$packages" "$wheels"/*.whl
  export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ -f "${ONEACTOR_RELEASE:-}" ]; then
  release=$root/target/bench-release
  mkdir -p "$release"
  "$python" -m tarfile -e "$ONEACTOR_RELEASE" "$release"
  export ONEACTOR_RELEASE=$release
fi
# The binaries were linked on another machine, whose path to libtorch means nothing here.
libtorch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
export LD_LIBRARY_PATH="$libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" "$here/gpu.py" "$@"
