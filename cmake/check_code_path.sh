#!/bin/sh
# check_code_path.sh PROGRAM BITS_FILE REFERENCE_FILE [FLAG]...
#
# Runs a program of test/conv_stack/vector_code_paths.cpp, which writes the bits of its results to BITS_FILE, and
# compares them with REFERENCE_FILE, unless both names are the same. Skipped (77) where /proc/cpuinfo does not list all
# flags.
set -eu
program=$1 bits=$2 reference=$3
shift 3
for flag; do
  if ! grep -qw "$flag" /proc/cpuinfo; then
    echo "skipped: the processor has no $flag"
    exit 77
  fi
done
rm -f "$bits"
TCNCA_BITS_FILE=$bits "$program" --gtest_brief=1
test -s "$bits"
[ "$bits" = "$reference" ] || cmp "$bits" "$reference"
