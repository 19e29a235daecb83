#!/bin/bash
# bootstrap.sh demo|test [--configure-only]: installs the packages that the CMake workflow preset of that name needs
# (Debian, Ubuntu), then runs the preset or only its configuration. On any system cmake/dependencies.cmake decides
# whether something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "bootstrap: $*" >&2; exit 1; }
usage() { echo "usage: $0 demo|test [--configure-only]" >&2; exit 2; }

packages=(g++ cmake ninja-build ccache pkg-config libcli11-dev libfftw3-dev libopenblas-dev libpng-dev)
case "${1:-}" in
  demo) packages+=(libbenchmark-dev libdnnl-dev perl) ;;  # perl: its manual is the text
  test) packages+=(libgtest-dev) ;;
  *) usage ;;
esac
run=(cmake --workflow --preset "$1")
case "${2:-}" in
  '') ;;
  --configure-only) run=(cmake --preset "$1") ;;
  *) usage ;;
esac
[ $# -le 2 ] || usage

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  missing=()
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
      command -v sudo >/dev/null ||
        fail "neither root nor sudo: ask an administrator to install ${missing[*]}
(if they are installed in another way: ${run[*]})"
      as_root=(sudo)
    fi
    echo "bootstrap: installing ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
      'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${missing[@]}" ||
      fail "apt-get could not install ${missing[*]}"
  fi
else
  for program in cmake ninja; do
    command -v "$program" >/dev/null ||
      fail "there is no apt-get, and $program is missing: install it and a C++20 compiler, then run this again"
  done
fi

version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
printf '3.25\n%s\n' "$version" | sort --check --version-sort 2>/dev/null ||
  fail "CMake $version is too old, 3.25 or newer is needed (pip install cmake brings one)"

exec "${run[@]}"
