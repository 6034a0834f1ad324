# shellcheck shell=bash
# Sourced by the other scripts: prepares this machine so that the project builds, and does nothing else.
#
# Needs Rust 1.89 (rustup.rs) and Python 3.11, or newer. libtorch comes from the PyPI wheel in .venv, unless
# LIBTORCH names your own libtorch 2.11. Set ONEACTOR_VENV to keep the environment elsewhere.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*" >&2; }
need() { # COMMAND PACKAGE: installs a missing system tool if allowed, else says how to install it
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $2"
    apt-get update -qq && apt-get install -y -qq "$2" >/dev/null
  else
    say "$1 is missing: install the package $2 (sudo apt-get install $2) and run this again"
    exit 1
  fi
}

reaches() { # VERSION LEAST
  [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

rust=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
if ! command -v cargo >/dev/null || ! reaches "${rust:-0}" 1.89; then
  say "Rust: found ${rust:-none}, expected 1.89 or newer, from https://rustup.rs"
  exit 1
fi
python=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null) || true
reaches "${python:-0}" 3.11 || { say "python3: found ${python:-none}, expected 3.11 or newer"; exit 1; }
need c++ g++

venv=${ONEACTOR_VENV:-$PWD/.venv}
install() { # NAME FILE: pip-installs a requirements file once for each version of it
  local stamp=$venv/.installed-$1
  cmp -s "$2" "$stamp" && return
  say "installing the Python packages of $2"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2"
  cp "$2" "$stamp"
}

if [ ! -x "$venv/bin/python" ]; then
  python3 -c "import ensurepip" 2>/dev/null || need python3-venv-is-missing python3-venv
  python3 -m venv "$venv"
fi
export PATH="$venv/bin:$PATH"
if [ -z "${LIBTORCH:-}" ]; then
  install libtorch scripts/requirements.txt
  export LIBTORCH_USE_PYTORCH=1
fi
