#!/bin/sh
# check_headers.sh 'EXTENSION...' COMPILER [ARGUMENT]...
# Every header with one of the extensions must compile alone: the compiler compiles an empty file with it included. Two
# compilers run at a time.
set -eu
cd "$(dirname "$0")/../include"
extensions=$1
shift
for extension in $extensions; do find tcnca -name "*.$extension"; done | sort |
  xargs -P 2 -I HEADER sh -c \
    'header=$0; "$@" -include "$header" /dev/null || { echo "$header does not compile alone"; exit 1; }' HEADER "$@"
