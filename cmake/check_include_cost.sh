#!/bin/bash
# check_include_cost.sh LIMIT HEADER COMPILER [ARGUMENT]...
# Including HEADER in an empty file must add at most LIMIT seconds of processor time. Best of three.
set -euo pipefail
limit=$1 header=$2
shift 2
TIMEFORMAT='%U %S'
seconds() {
  for _ in 1 2 3; do { time "$@" /dev/null; } 2>&1; done |
    awk '{ t = $1 + $2; if (NR == 1 || t < best) best = t } END { print best }'
}
"$@" -include "$header" /dev/null
empty=$(seconds "$@")
full=$(seconds "$@" -include "$header")
awk -v h="$header" -v e="$empty" -v f="$full" -v l="$limit" 'BEGIN {
  printf "%s: %.2f s, an empty file: %.2f s, difference %.2f s (at most %s s)\n", h, f, e, f - e, l
  exit f - e > l
}'
