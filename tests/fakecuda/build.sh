#!/usr/bin/env bash
# Builds the simulated libtorch_cuda.so in target/fakecuda, if its sources or the installed libtorch have
# changed. libtorch is the folder that LIBTORCH names, else the package `torch` of ONEACTOR_PYTHON.
#
# A libtorch without the table of operators (the Python package has it, the archive of libtorch alone has
# not) cannot be simulated: then the file target/fakecuda/missing says so, and tests/cuda skips its tests.
set -euo pipefail
cd "$(dirname "$0")"
out=../../target/fakecuda
mkdir -p "$out"

torch=${LIBTORCH:-}
if [ -z "$torch" ]; then
  find_torch='import importlib.util as util; print(util.find_spec("torch").submodule_search_locations[0])'
  torch=$("${ONEACTOR_PYTHON:-python3}" -c "$find_torch")
fi
table=$torch/../torchgen/packaged/ATen/native/native_functions.yaml
if [ ! -f "$table" ]; then
  echo "there is no table of operators beside $torch (the Python package torch has it): the GPU is not simulated" |
    tee "$out/missing" >&2
  rm -f "$out/libtorch_cuda.so" "$out/stamp"
  exit
fi
rm -f "$out/missing"

stamp=$(sha256sum -- *.cpp *.h *.py build.sh && stat --format '%n %s %Y' "$torch/lib/libtorch_cpu.so" "$table")
[ -f "$out/libtorch_cuda.so" ] && [ "$stamp" = "$(cat "$out/stamp" 2>/dev/null)" ] && exit
rm -rf "${out:?}"/*
echo "building the simulated GPU" >&2

"${ONEACTOR_PYTHON:-python3}" cuda_operators.py "$table" >"$out/cuda_operators.inc"
flags=(-std=c++17 -O1 -fPIC -fvisibility=hidden -Wall -Wno-stringop-overflow "-I$out"
  -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include")
g++ "${flags[@]}" -x c++-header libtorch.h -o "$out/libtorch.h.gch"
# Two at a time: each compiler needs about 1 GB of memory.
printf '%s\0' *.cpp |
  xargs --null --max-procs 2 -I {} g++ "${flags[@]}" -include "$out/libtorch.h" -c {} -o "$out/{}.o"
g++ -shared -Wl,-soname,libtorch_cuda.so -o "$out/libtorch_cuda.so" "$out"/*.o -L"$torch/lib" -ltorch_cpu -lc10 \
  -Wl,-rpath,"$torch/lib"
rm "$out"/*.o "$out/libtorch.h.gch"
echo "$stamp" >"$out/stamp"
