#!/bin/bash
# check_conan.sh CONAN: creates the Conan package from this checkout, in a cache of its own and without a network, then
# builds and runs the project in test_package/ against it.
set -euo pipefail
conan=$1
recipe=$(cd "$(dirname "$0")" && pwd)/packages/conan
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export CONAN_HOME=$folder/home

version=$("$conan" --version)
case $version in
  "Conan version 2."*) ;;
  *) echo "skipped: the recipe is for Conan 2, not for $version"; exit 77 ;;
esac
"$conan" profile detect
"$conan" create "$recipe" --no-remote -s compiler.cppstd=20 -c "tools.cmake.cmake_layout:test_folder=$folder/test"
# With an older standard the recipe must refuse, with a reason.
if "$conan" create "$recipe" --no-remote -s compiler.cppstd=17 --test-folder= >"$folder/refused" 2>&1; then
  echo "check_conan: C++17 was accepted"
  exit 1
fi
grep -q "Current cppstd (17) is lower than the required C++ standard (20)" "$folder/refused" ||
  { cat "$folder/refused"; exit 1; }
