#!/bin/sh
# check_codegen.sh SOURCE ARCHITECTURE NVCC [ARGUMENT]...
# SOURCE must compile for sm_ARCHITECTURE, and its kernels must keep their barriers: the PTX of a kernel whose mangled name matches NAME has
# as many bar.sync as a line "// barriers: NAME COUNT" says (or "// barriers sm_ARCHITECTURE: NAME COUNT"; the first that matches). The count is
# that of the source, each inlined call for itself. In a source with such lines each kernel that has barriers must be named, and each line used.
set -eu
source=$1 arch=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$@" "-arch=sm_$arch" -cubin --keep --keep-dir "$work" -o "$work/cubin" "$source"
sed -nE "s|^// barriers( sm_$arch)?: ||p" "$source" >"$work/expected"
[ -s "$work/expected" ] || exit 0
cat "$work"/*.ptx | awk -v expected="$work/expected" '
BEGIN { while ((getline line <expected) > 0) { split(line, word, " "); pattern[++n] = word[1]; count[n] = word[2] } }
/\.entry / { name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name); barriers = 0 }
/(bar|barrier)\.sync/ { barriers++ }
/^}/ && name != "" {
  for (i = 1; i <= n && name !~ pattern[i]; i++);
  if (i <= n) used[i]
  if (i > n && barriers > 0) { print name ": " barriers " barriers, but no line names it"; bad = 1 }
  if (i <= n && barriers != count[i]) { print name ": " barriers " barriers, expected " count[i] " (" pattern[i] ")"; bad = 1 }
  name = ""
}
END {
  for (i = 1; i <= n; i++) if (!(i in used)) { print "no kernel is named " pattern[i]; bad = 1 }
  exit bad
}'
