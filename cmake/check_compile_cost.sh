#!/bin/bash
# check_compile_cost.sh SOURCE_FOLDER COMPILER [ARGUMENT]...
#
# The cost of compiling one instantiation of conv_stack: user time of SOURCE_FOLDER/{forward,backward}.cpp divided by
# that of reference.cpp, which uses the standard library only.
# The ratio depends less on the machine and its load than seconds do. Median of three.
set -euo pipefail
# The limits, in the time of the reference, which takes about 2 s on a quiet core. A quarter more than measured: 0.9
# forward, 2.5 backward (g++ 12, Xeon with AVX-512).
declare -A limit=([forward]=1.1 [backward]=3.1)

folder=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT=%U
# The sources take turns, so that a change in the load of the machine affects all of them.
for _ in 1 2 3; do
  for name in reference forward backward; do
    { time "$@" -c "$folder/$name.cpp" -o "$work/object" 2>"$work/messages"; } 2>>"$work/$name" ||
      { cat "$work/messages"; exit 1; }
  done
done
median() { sort -n "$work/$1" | sed -n 2p; }
reference=$(median reference)
status=0
for name in forward backward; do
  awk -v name="$name" -v t="$(median $name)" -v r="$reference" -v limit="${limit[$name]}" 'BEGIN {
    printf "%s: %.2f s, reference: %.2f s, ratio %.2f (at most %s)\n", name, t, r, t / r, limit
    exit t / r > limit
  }' || status=1
done
exit $status
