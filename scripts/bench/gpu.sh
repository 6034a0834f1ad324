#!/usr/bin/env bash
# Runs gpu.py on a machine that may have no network. Needs a Python that has torch 2.11, a folder of wheels
# with the other packages, and the two programs.
#
# On a machine with a network, fetch all wheels of the peer by
#
#   python3 -m pip download --no-deps --only-binary=:all: -r scripts/bench/requirements.txt -d WHEELS
#
# with the same version of Python. For another version of Python, or for missing packages only, take the
# versions from requirements.txt:
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d WHEELS \
#     diffusers==0.42.1 importlib-metadata==10.2.0 zipp==4.1.2
#
# Make the programs by `cargo build --release --locked --bins --examples`. If they are not in target/release,
# ONEACTOR_RELEASE names their folder, or an archive of both, which takes a third of the space:
#
#   XZ_OPT=-9 tar -cJf oneactor.tar.xz -C target/release oneactor examples/bench_server
#
# Usage: gpu.sh WHEELS|- [arguments of gpu.py]      - : no package is missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/p}' "$0" >&2; exit 2; }
wheels=$1
shift
python=${ONEACTOR_PYTHON:-python3}
root=$here/../..
if [ "$wheels" != - ]; then
  # A folder of its own, so that the machine's packages stay unchanged.
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
# The binaries were linked on another machine, whose path to libtorch does not exist here.
libtorch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")')
export LD_LIBRARY_PATH="$libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" "$here/gpu.py" "$@"
