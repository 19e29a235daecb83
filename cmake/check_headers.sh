#!/bin/sh
# check_headers.sh 'PATTERN...' COMPILER [ARGUMENT]...
# Every header under include/ whose path matches one of the patterns (of `find -path`) must compile alone: the compiler
# compiles an empty file with this header included. Two compilers run at a time.
set -euf
cd "$(dirname "$0")/../include"
patterns=$1
shift
for pattern in $patterns; do find tcnca -path "$pattern"; done | sort -u |
  xargs -P 2 -I HEADER sh -c \
    'header=$0; "$@" -include "$header" /dev/null || { echo "$header does not compile alone"; exit 1; }' HEADER "$@"
