#!/bin/sh
# check_compile_fail.sh SOURCE COMPILER [ARGUMENT]...
# SOURCE must fail to compile, and the compiler must print the sentence of its line "// expect: SENTENCE".
# A line "// arguments: ..." adds arguments; a line "// errors: N" limits the number of errors.
set -u
source=$1
shift
sentence=$(sed -n 's|^// expect: ||p' "$source")
[ -n "$sentence" ] || { echo "$source has no line \"// expect: SENTENCE\""; exit 1; }
most=$(sed -n 's|^// errors: ||p' "$source")
# shellcheck disable=SC2046
if output=$("$@" $(sed -n 's|^// arguments: ||p' "$source") "$source" 2>&1); then
  echo "$source compiled, but it must not"
elif [ -n "$most" ] && [ "$(printf '%s\n' "$output" | grep -c 'error:')" -gt "$most" ]; then
  printf '%s\n' "$output" | head -n 50
  echo "$source failed to compile with more than $most errors"
elif printf '%s' "$output" | grep -qF -- "$sentence"; then
  exit 0
else
  printf '%s\n' "$output"
  echo "$source failed to compile, but without the sentence: $sentence"
fi
exit 1
