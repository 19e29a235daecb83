#!/bin/sh
# check_codegen.sh SOURCE ARCHITECTURE CUOBJDUMP NVCC [ARGUMENT]...
# SOURCE must compile for sm_ARCHITECTURE. Lines of it state what its kernels contain, for all architectures or for one
# ("// barriers sm_90a: ..."):
#   // barriers: NAME COUNT    The PTX of each kernel whose mangled name matches NAME has COUNT bar.sync: the number in
#                              the source, with each inlined call counted. The first line that matches applies. If
#                              there are such lines, every kernel with barriers must match one, and every line a kernel.
#   // sass: INSTRUCTION...    The machine code contains each of these instructions.
# Without cuobjdump the machine code is not read.
set -eu
source=$1 arch=$2 cuobjdump=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$@" "-arch=sm_$arch" -cubin --keep --keep-dir "$work" -o "$work/cubin" "$source"
stated() { sed -nE "s|^// $1( sm_$arch)?: ||p" "$source"; }
bad=0

stated barriers >"$work/barriers"
[ ! -s "$work/barriers" ] || cat "$work"/*.ptx | awk -v expected="$work/barriers" '
BEGIN { while ((getline line <expected) > 0) { split(line, word, " "); pattern[++n] = word[1]; count[n] = word[2] } }
/\.entry / { name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name); barriers = 0 }
/(bar|barrier)\.sync/ { barriers++ }
/begin inline asm/ { inside = 1 }  # it may have lines of braces
/end inline asm/ { inside = 0 }
/^}/ && !inside && name != "" {
  for (i = 1; i <= n && name !~ pattern[i]; i++);
  if (i <= n) used[i]
  if (i > n && barriers > 0) { print name ": " barriers " barriers, but no line names this kernel"; bad = 1 }
  if (i <= n && barriers != count[i]) {
    print name ": " barriers " barriers, expected " count[i] " (" pattern[i] ")"; bad = 1
  }
  name = ""
}
END {
  for (i = 1; i <= n; i++) if (!(i in used)) { print "no kernel matches " pattern[i]; bad = 1 }
  exit bad
}' || bad=1

if [ -n "$(stated sass)" ] && [ -x "$cuobjdump" ]; then
  "$cuobjdump" -sass "$work/cubin" >"$work/sass"
  for instruction in $(stated sass); do
    count=$(grep -cF -- "$instruction" "$work/sass" || true)
    echo "$instruction: $count"
    [ "$count" -gt 0 ] || bad=1
  done
fi
exit $bad
