#!/bin/sh
# check_sass.sh SOURCE CUOBJDUMP NVCC [ARGUMENT]...
# The machine code of SOURCE must hold each instruction that the source names in a line "// sass: INSTRUCTION..." (or "// sass MACHINE: INSTRUCTION..."). Exit status 77: there is no cuobjdump to look with.
set -eu
source=$1 cuobjdump=$2
shift 2
[ -x "$cuobjdump" ] || { echo "skipped: cuobjdump was not found"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$@" -cubin -o "$work/cubin" "$source"
"$cuobjdump" -sass "$work/cubin" >"$work/sass"
bad=0
for instruction in $(sed -nE 's|^// sass( sm_[0-9a-z]+)?: ||p' "$source"); do
  count=$(grep -cF -- "$instruction" "$work/sass" || true)
  echo "$instruction: $count"
  [ "$count" -gt 0 ] || bad=1
done
exit $bad
