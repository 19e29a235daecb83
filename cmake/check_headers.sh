#!/bin/sh
# check_headers.sh hpp|cuda COMPILER [ARGUMENT]...
# Headers must compile alone: the compiler compiles an empty file with one included. hpp: all *.hpp. cuda: the public
# headers, *.cuh, and those with code for CUDA only. Two compilers run at a time.
set -eu
cd "$(dirname "$0")/../include"
case $1 in
  hpp) headers=$(find tcnca -name '*.hpp') ;;
  cuda) headers=$(find tcnca -name '*.cuh'; ls tcnca/*.hpp; grep -rlE '__CUDACC__|__CUDA_ARCH' tcnca) ;;
  *) echo "check_headers.sh: hpp or cuda, not \"$1\""; exit 1 ;;
esac
shift
printf '%s\n' "$headers" | sort -u |
  xargs -P 2 -I HEADER sh -c \
    'header=$0; "$@" -include "$header" /dev/null || { echo "$header does not compile alone"; exit 1; }' HEADER "$@"
