#!/bin/bash
# check_without_models.sh CMAKE: examples/models and examples/evaluations are a project of their own. A copy of the tree
# without both must configure with tests, benchmarks and examples; no file of it may include a deleted one; a teaching
# program and a small test must build and run.
set -euo pipefail
cmake=$1
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
fail() { echo "check_without_models: $*" >&2; exit 1; }

[ -d examples/models ] || { echo "skipped: examples/models is already deleted"; exit 77; }
tar -c --exclude-vcs --exclude=./build --exclude=./shared --exclude=./examples/models \
  --exclude=./examples/evaluations . | tar -x -C "$copy"
cd "$copy"

# Only the comparison of layer steps uses the models. It is built together with them.
if grep -rnE '#[ \t]*include[ \t]*[<"]([^">]*/)?(models|evaluations)/' include test bench examples \
  --include='*.[hc]pp' --include='*.cu' --include='*.cuh' |
  grep -vE '^bench/(comparisons/layer_)?step/'; then
  fail "these files include deleted ones"
fi

"$cmake" -S . -B build -G Ninja -D TCNCA_CUDA=OFF -D CMAKE_CXX_FLAGS_RELEASE=-O0 \
  -D TCNCA_BUILD_TESTS=ON -D TCNCA_BUILD_BENCH=ON -D TCNCA_BUILD_EXAMPLES=ON >configured 2>&1 ||
  { cat configured; fail "configuration failed"; }
programs='(example_(associative|language|lra|serving)|test_(layer|network|language)|layer_step|tcnca_models)'
! ninja -C build -t targets all | grep -E "$programs" ||
  fail "the build still contains a program of the models"
"$cmake" --build build --target example_quickstart test_common_numeric >built 2>&1 ||
  { cat built; fail "a program does not build"; }
build/examples/example_quickstart
build/test/test_common_numeric --gtest_brief=1
