#!/bin/bash
# bootstrap.sh demo|test: installs what is missing (Debian or Ubuntu), then runs the CMake workflow preset of that name.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in demo | test) preset=$1 ;; *) echo "usage: $0 demo|test" >&2; exit 2 ;; esac

fail() { echo "bootstrap: $*" >&2; exit 1; }
has_command() { command -v "$1" >/dev/null; }
has_header() { printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" | "${CXX:-g++}" -E -x c++ -o /dev/null - 2>/dev/null; }

# What is not there, as Debian packages. The compiler comes first: the headers are looked for through it.
missing() {
  has_command "${CXX:-g++}" || echo g++
  has_command cmake || echo cmake
  has_command ninja || echo ninja-build
  has_command ccache || echo ccache
  if [ "$preset" = test ]; then
    has_header gtest/gtest.h || echo libgtest-dev
    has_header CLI/CLI.hpp || echo libcli11-dev
    has_header cblas.h || has_header openblas/cblas.h || echo libopenblas-dev
    has_header fftw3.h || echo libfftw3-dev
    has_header png.h || echo libpng-dev
  else
    has_header benchmark/benchmark.h || echo libbenchmark-dev
    has_header CLI/CLI.hpp || echo libcli11-dev
    has_header fftw3.h || echo libfftw3-dev
    has_header oneapi/dnnl/dnnl.hpp || echo libdnnl-dev
    has_header cblas.h || has_header openblas/cblas.h || echo libopenblas-dev
  fi
}

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
  has_command apt-get || fail "these are missing, by their Debian names; install them, then run this again: ${packages[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    has_command sudo || fail "neither root nor sudo: ask an administrator to install ${packages[*]}"
    as_root=(sudo)
  fi
  echo "bootstrap: installing ${packages[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null' sh "${packages[@]}" ||
    fail "apt-get could not install ${packages[*]}"
  mapfile -t packages < <(missing)
  [ ${#packages[@]} -eq 0 ] || fail "still missing after the installation: ${packages[*]}"
fi

version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
printf '3.25\n%s\n' "$version" | sort --check --version-sort 2>/dev/null ||
  fail "CMake $version is too old, 3.25 or newer is needed (pip install cmake brings one)"

exec cmake --workflow --preset "$preset"
