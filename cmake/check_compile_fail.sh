#!/bin/sh
# check_compile_fail.sh SOURCE COMPILER [ARGUMENT]...
# SOURCE must fail to compile, and the compiler must print the sentence that the source names in a line "// expect: SENTENCE".
set -u
source=$1
shift
sentence=$(sed -n 's|^// expect: ||p' "$source")
[ -n "$sentence" ] || { echo "$source names no sentence to expect"; exit 1; }
if output=$("$@" "$source" 2>&1); then
  echo "$source compiled, but it must not"
elif printf '%s' "$output" | grep -qF -- "$sentence"; then
  exit 0
else
  printf '%s\n' "$output"
  echo "$source failed to compile, but without the sentence: $sentence"
fi
exit 1
