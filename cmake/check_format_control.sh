#!/bin/sh
# check_format_control.sh: check_format.sh must accept a small tree, and reject it with one fault. Exit status 77: there
# is no clang-format 14.
set -u
scripts=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cd "$tree"
mkdir include test bench examples cmake .ci
cp "$scripts/../.clang-format" .
echo '# Title' >readme.md
touch CMakeLists.txt .ci/run
long=$(printf '%0130d' 0)

# expect STATUS FILE LINE: the status of the check if FILE holds LINE
expect() {
  echo "$3" >"$2"
  "$scripts/check_format.sh" "$tree" >output 2>&1
  status=$?
  rm "$2"
  [ $status -ne 77 ] || { cat output; exit 77; }
  [ $status -eq "$1" ] || { echo "\"$3\" in $2: exit status $status, expected $1"; cat output; exit 1; }
}
expect 0 include/a.hpp 'int a;'
expect 1 include/a.hpp 'int  a ;'
expect 1 include/a.hpp "// $long"
expect 1 cmake/a.cmake "# $long"
expect 1 a.md "$long"
expect 0 a.md "| $long |"
