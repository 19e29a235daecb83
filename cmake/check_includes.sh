#!/bin/sh
# check_includes.sh [ROOT]: rules of the tree that no compiler checks.
#   - Includes point down the layers: core, arch, block, launch, an operation's folder with its sub-folders, a public
#     header.
#   - No operation includes another. Only tcnca.hpp includes all.
#   - test/reference includes core only. The library includes nothing outside itself.
#   - examples/models and examples/evaluations include neither arch nor the folder of an operation.
#   - At most twelve of our headers lie under a public one, one inside the other.
#   - At most seven macros. Two of them form the name of the inline namespace, which a template cannot.
#   - All code except core, shapes and arguments is in that namespace.
#   - No assignment of a braced list with designators without its type, `x = T{.a = 1, .c = 2}`: in templates nvcc 13.0
#     drops the designators, so that c's value goes to the second member.
#   - No source has more than 400 lines.
set -eu
cd "${1:-$(dirname "$0")/..}"
find include test bench examples cmake -type f \( -name '*.hpp' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \
  -o -name '*.py' -o -name '*.sh' -o -name '*.cmake' -o -name CMakeLists.txt \) 2>/dev/null | sort | xargs awk '
function complain(message) { print message; bad = 1 }
function layer(path) {  # 0 (core) to 3 (launch), 4: the folder of an operation, 5: public; -1: not in the library
  if (path !~ /^include\/tcnca\//) return -1
  for (i = 0; i < 4; i++) if (path ~ "^include/tcnca/" order[i] "/") return i
  return path ~ /^include\/tcnca\/[^\/]*$/ ? 5 : 4
}
function operation(path) { sub(/^include\/tcnca\//, "", path); sub(/[\/.].*/, "", path); return path }
function depth(path, n, i, list, d, most) {  # the longest chain of includes under this header
  if (path in known) return known[path]
  if (path in open) { complain(path ": includes itself"); return 0 }
  open[path]
  n = split(includes[path], list, " ")
  for (i = 1; i <= n; i++) if ((d = 1 + depth(list[i])) > most) { most = d; deepest[path] = list[i] }
  delete open[path]
  return known[path] = most + 0
}
BEGIN { split("core arch block launch", names, " "); for (i = 1; i <= 4; i++) order[i - 1] = names[i] }
FNR == 1 { files[FILENAME] }
FNR == 401 { complain(FILENAME ": more than 400 lines") }
/^#define TCNCA_/ && FILENAME ~ /^include/ { split($2, macro, "("); macros[macro[1]] }
# Views, status, executors, shapes and arguments are the same types in all files of a program. Everything else depends
# on the flags of the compiler.
/^namespace tcnca/ && FILENAME ~ /^include/ && !/inline TCNCA_TARGET/ &&
FILENAME !~ /\/core\/|\/(shape|arguments)[.]hpp$/ {
  complain(FILENAME ":" FNR ": not in namespace tcnca::inline TCNCA_TARGET")
}
FILENAME ~ /^include/ && /^ *[^ \/]+ = \{[.]/ {
  complain(FILENAME ":" FNR ": the braced list needs its type: nvcc drops its designators")
}
/^[ \t]*#[ \t]*include[ \t]*["<]/ {
  name = $0; sub(/^[^"<]*["<]/, "", name); sub(/[">].*/, "", name)
  if ($0 ~ /</) { if (name !~ /^tcnca\//) next; target = "include/" name }
  else {
    target = FILENAME; sub(/[^\/]*$/, "", target); target = target name
    while (sub(/[^\/]+\/\.\.\//, "", target));
    if (name ~ /^tcnca\//) target = "include/" name
    else if (FILENAME ~ /^test\// && name ~ /^[a-z_]+\//) target = "test/" name
  }
  includes[FILENAME] = includes[FILENAME] " " target
  where = FILENAME ":" FNR ": includes " target
  if (layer(FILENAME) >= 0 && layer(target) < 0) complain(where ", which is not in the library")
  if (layer(FILENAME) >= 0 && layer(target) > layer(FILENAME)) complain(where ", which is a layer above")
  if (layer(FILENAME) >= 4 && FILENAME !~ /\/tcnca[.]hpp$/ && layer(target) >= 4 &&
      operation(target) != operation(FILENAME))
    complain(where ", which is another operation")
  if (FILENAME ~ /^test\/reference\// && target !~ /^(test\/reference|include\/tcnca\/core)\//)
    complain(where ", but a reference includes core only")
  if (FILENAME ~ /^examples\/(models|evaluations)\// && (layer(target) == 1 || layer(target) == 4))
    complain(where ", which is internal")
}
END {
  for (path in files) if (layer(path) == 5 && depth(path) > 12 + (path ~ /\/tcnca.hpp$/)) {
    chain = ""
    for (next_one = deepest[path]; next_one; next_one = deepest[next_one]) chain = chain " > " next_one
    gsub(/include\/tcnca\//, "", chain)
    complain(path ": " depth(path) " headers deep, at most 12:" chain)
  }
  for (name in macros) { count++; all = all " " name }
  if (count > 7) complain("more than seven macros:" all)
  exit bad
}'
