#!/bin/bash
# check_compile_cost.sh SOURCE_FOLDER COMPILER [ARGUMENT]...
#
# The cost of compiling one instantiation of conv_stack beyond that of the header: the user time of
# SOURCE_FOLDER/{forward,backward}.cpp minus that of include.cpp, in seconds of a core on which reference.cpp, which
# uses the standard library only, takes `reference_seconds`. This depends less on the machine and its load than seconds
# do, but it still varied by a quarter between machines: the limits are 1.5 times the values measured, 3.0 and 3.4.
# Median of three.
set -euo pipefail
declare -A limit=([forward]=4.5 [backward]=5.1)
reference_seconds=2.0 # g++ 12, Xeon with AVX-512, a quiet core

folder=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT=%U
# The sources take turns, so that a change in the load of the machine affects all of them.
for _ in 1 2 3; do
  for name in reference include forward backward; do
    { time "$@" -c "$folder/$name.cpp" -o "$work/object" 2>"$work/messages"; } 2>>"$work/$name" ||
      { cat "$work/messages"; exit 1; }
  done
done
median() { sort -n "$work/$1" | sed -n 2p; }
reference=$(median reference)
include=$(median include)
status=0
for name in forward backward; do
  awk -v name="$name" -v t="$(median $name)" -v i="$include" -v r="$reference" -v s="$reference_seconds" \
    -v limit="${limit[$name]}" 'BEGIN {
    cost = (t - i) / r * s
    printf "%s: %.2f s, %.2f s of them for the header, reference %.2f s: ", name, t, i, r
    printf "%.2f s beyond the header (at most %s)\n", cost, limit
    exit cost > limit
  }' || status=1
done
exit $status
