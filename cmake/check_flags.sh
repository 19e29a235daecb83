#!/bin/sh
# check_flags.sh SOURCE_FOLDER WORK_FOLDER reference COMPILER [ARGUMENT]...
# check_flags.sh SOURCE_FOLDER WORK_FOLDER NAME COMPILER [ARGUMENT]...
#
# The first form compiles test/flags in fp64 without special flags. The second compiles the fp32 part with the
# arguments, links it with the fp64 part and runs the program, which compares both.
set -eu
source=$1 work=$2 name=$3
shift 3
mkdir -p "$work"
if [ "$name" = reference ]; then
  "$@" -O1 -c "$source/main.cpp" -o "$work/main.o"
  exec "$@" -O1 -DREAL=double -DCOMPUTE=fp64 -c "$source/part.cpp" -o "$work/part.o"
fi
"$@" -DREAL=float -DCOMPUTE=fp32 -c "$source/part.cpp" -o "$work/$name.o"
"$@" "$work/main.o" "$work/part.o" "$work/$name.o" -o "$work/$name"
exec "$work/$name"
