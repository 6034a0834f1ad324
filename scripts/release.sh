#!/usr/bin/env bash
# Makes oneactor-VERSION-x86_64-linux-{cpu,cuda}.tar.gz and its SHA-256. The archive has the program,
# libtorch's libraries in lib/ beside it, licences, completions, man pages and examples, and runs from any
# folder.
#
#   scripts/release.sh [--flavour auto|cpu|cuda] [--without-libtorch] [--licences FOLDER] [--level 1-9] [--out FOLDER]
#
#   --flavour           cpu leaves CUDA out even if this libtorch has it [auto: cuda if libtorch has CUDA]
#   --without-libtorch  no lib/: a small archive, whose README says where to get libtorch
#   --licences          licence texts of your own libtorch (LIBTORCH); those of the PyPI wheels are found
#   --level             level of gzip [6]; 0 leaves the folder and makes no archive
#   --out               folder of the archive [target/tarball]
set -euo pipefail

flavour=auto with_libtorch=yes licences='' level=6 out=''
fail() { printf '== %s\n' "$*" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --flavour) flavour=${2:-}; shift 2 || fail "--flavour needs a value" ;;
    --without-libtorch) with_libtorch=no; shift ;;
    --licences) licences=${2:-}; shift 2 || fail "--licences needs a folder" ;;
    --level) level=${2:-}; shift 2 || fail "--level needs a number" ;;
    --out) out=${2:-}; shift 2 || fail "--out needs a folder" ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;;
    *) fail "$1: no such option, see scripts/release.sh --help" ;;
  esac
done
case $flavour in auto | cpu | cuda) ;; *) fail "--flavour: found \"$flavour\", expected auto, cpu or cuda" ;; esac
case $level in [0-9]) ;; *) fail "--level: found \"$level\", expected 0 to 9" ;; esac
[ -z "$licences" ] || [ -d "$licences" ] || fail "--licences: there is no folder $licences"
# Relative paths count from the folder in which the script was called.
[ -z "$licences" ] || licences=$(cd "$licences" && pwd)
[ -z "$out" ] || out=$(realpath -m "$out")
# The rest runs in the root of the repository, with libtorch.
. "$(dirname "$0")/environment.sh"
need readelf binutils
need patchelf patchelf

if [ -n "${LIBTORCH:-}" ]; then
  libtorch=$LIBTORCH/lib
else
  libtorch=$(python3 -c 'import os, importlib.util as u; print(os.path.dirname(u.find_spec("torch").origin))')/lib
fi
[ -e "$libtorch/libtorch_cpu.so" ] || fail "$libtorch has no libtorch_cpu.so: set LIBTORCH to a libtorch 2.11"
has_cuda=no
[ ! -e "$libtorch/libtorch_cuda.so" ] || has_cuda=yes
case $flavour-$has_cuda in
  auto-yes) flavour=cuda ;;
  auto-no) flavour=cpu ;;
  cuda-no) fail "--flavour cuda: the libtorch in $libtorch has no CUDA" ;;
esac

say "building"
cargo build --release --locked --bin oneactor

out=${out:-$PWD/target/tarball}
mkdir -p "$out"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=oneactor-$version-x86_64-linux-$flavour
[ $with_libtorch = yes ] || name=$name-without-libtorch
stage=$out/$name
rm -rf "$stage" "$stage.tar.gz" "$stage.tar.gz.sha256"
mkdir -p "$stage/lib" "$stage/licences" "$stage/completions" "$stage/man/man1"
cp "${CARGO_TARGET_DIR:-target}/release/oneactor" "$stage/oneactor"
# The build records the path of its libtorch; here only the folder beside the program counts. CUDA's libraries
# register themselves when they are loaded, and nothing refers to them, so they can be removed by name.
# shellcheck disable=SC2016
patchelf --set-rpath '$ORIGIN/lib' "$stage/oneactor"
[ "$flavour" = cuda ] ||
  patchelf --remove-needed libtorch_cuda.so --remove-needed libtorch.so "$stage/oneactor"

say "libraries"
# The PyPI wheels have CUDA's libraries in folders beside torch's.
folders=("$libtorch" "$libtorch"/../../nvidia/*/lib)
# Libraries of every Linux with glibc (libz is for cuDNN) or of NVIDIA's driver (libcuda); they are never
# shipped.
of_the_system=' libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libgcc_s.so.1 libstdc++.so.6 ld-linux-x86-64.so.2 libz.so.1 libcuda.so.1 '
declare -A seen=()
collect() { # NAME: copies a library, and the libraries that it needs
  [ -z "${seen[$1]:-}" ] || return 0
  seen[$1]=yes
  [[ $of_the_system != *" $1 "* ]] || return 0
  local folder other
  for folder in "${folders[@]}"; do
    [ -e "$folder/$1" ] || continue
    cp -L "$folder/$1" "$stage/lib/$1"
    for other in $(needed "$folder/$1"); do collect "$other"; done
    return 0
  done
  fail "$1 is needed, but neither beside libtorch nor a part of every Linux"
}
needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
for library in $(needed "$stage/oneactor"); do collect "$library"; done
if [ "$flavour" = cuda ]; then
  [ -e "$stage/lib/libtorch_cuda.so" ] || fail "the program is not linked to libtorch_cuda.so: no GPU would be found"
  # Libraries that are opened by name when needed: cuDNN's parts, and the compiler of kernels. The program
  # never uses the libraries for linear algebra (libtorch_cuda_linalg, cuSOLVER).
  for path in $(for folder in "${folders[@]}"; do
    find "$folder" -maxdepth 1 \( -name 'libcudnn_*.so*' -o -name 'libcaffe2_nvrtc.so' -o -name 'libnvrtc*.so*' \) \
      ! -name '*.alt.so*'
  done); do collect "$(basename "$path")"; done
fi

say "licences"
cp LICENSE "$stage/LICENSE"
python3 scripts/release/crate_licences.py >"$stage/licences/rust-crates.txt"
cp src/io/clip/LICENSE "$stage/licences/clip-vocabulary.txt"
if [ $with_libtorch = yes ]; then
  if [ -n "$licences" ]; then
    cp -r "$licences" "$stage/licences/libtorch"
  else
    # The folders of the wheels' metadata, each with the licence texts of its package.
    for info in "$libtorch"/../../torch-*.dist-info "$libtorch"/../../nvidia_*.dist-info; do
      [ -d "$info/licenses" ] || continue
      case $info-$flavour in */nvidia_cuda_cupti-*-cpu | */nvidia_cuda_runtime-*-cpu | */torch-*) ;; *-cpu) continue ;; esac
      package=$(basename "$info" .dist-info)
      cp -r "$info/licenses" "$stage/licences/$package"
    done
    compgen -G "$stage/licences/torch-*/LICENSE" >/dev/null ||
      fail "no licence texts beside $libtorch: name their folder by --licences"
  fi
fi

say "completions, man pages, examples"
# Without a lib/ in the archive, the program starts with the build's libtorch.
run() { env -i HOME="$HOME" LD_LIBRARY_PATH="$1" "$stage/oneactor" "${@:2}"; }
where=''
[ $with_libtorch = yes ] || { rm -r "${stage:?}/lib"; where=$libtorch; }
for shell in bash zsh fish; do run "$where" completions "$shell" >"$stage/completions/oneactor.$shell"; done
run "$where" man "$stage/man/man1" >/dev/null
cp -r configs prompts README.md "$stage/"
install -D scripts/convert_encoder.py "$stage/scripts/convert_encoder.py"
glibc=$(find "$stage" \( -name oneactor -o -name '*.so*' \) -type f -exec readelf -V {} + 2>/dev/null |
  grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
glibcxx=$(find "$stage" \( -name oneactor -o -name '*.so*' \) -type f -exec readelf -V {} + 2>/dev/null |
  grep -o 'GLIBCXX_3\.4\.[0-9]*' | sort -uV | tail -n 1)
sed -e "s/@VERSION@/$version/; s/@GLIBC@/${glibc#GLIBC_}/; s/@GLIBCXX@/$glibcxx/" \
  "scripts/release/with-libtorch-$with_libtorch.txt" >"$stage/README.txt"

say "checking that the program needs no other library"
# With an empty environment, libraries may come only from the program's own folder and from the system.
strange=$(env -i LD_LIBRARY_PATH="$where" ldd "$stage/oneactor" | grep -E '=>' |
  grep -vE "=> ($stage/|/lib/|/lib64/|/usr/lib)" || true)
[ $with_libtorch = no ] || [ -z "$strange" ] || fail "these come from elsewhere: $strange"
linked=$(run "$where" doctor | sed -n 's/^cuda linked  *//p') || fail "the program does not start there"
case $flavour-$linked in
  cuda-yes* | cpu-no*) say "cuda linked: $linked" ;;
  *) fail "the program says \"cuda linked: $linked\", expected that of $flavour" ;;
esac
du -sh "$stage" >&2
[ "$level" != 0 ] || { echo "$stage"; exit; }

say "archive"
# Names in order, no owners, one time: the same files give the same archive.
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -cf - "$name" |
  gzip -n "-$level" >"$stage.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
rm -rf "$stage"
printf '%s\n' "$stage.tar.gz" "$stage.tar.gz.sha256"
