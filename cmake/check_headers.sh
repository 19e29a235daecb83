#!/bin/sh
# check_headers.sh 'EXTENSION...' COMPILER [ARGUMENT]...
# Every header must compile alone: the compiler is run on an empty file with one header included, two at a time.
set -eu
cd "$(dirname "$0")/../include"
extensions=$1
shift
for extension in $extensions; do find tcnca -name "*.$extension"; done | sort |
  xargs -P 2 -I HEADER sh -c 'header=$0; "$@" -include "$header" /dev/null || { echo "$header does not compile alone"; exit 1; }' HEADER "$@"
