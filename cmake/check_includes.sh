#!/bin/sh
# Rules that a reader of the tree relies on and no compiler checks:
# includes point down the layers, no operation includes another, test/reference is made of core alone, a public header is at most ten of our headers deep,
# there are at most seven macros (two of them form the name of the inline namespace, which no template can), all code but the vocabulary stands
# in that namespace, and no source file has more than 400 lines.
set -eu
cd "${1:-$(dirname "$0")/..}"
find include test bench examples cmake -type f \
  \( -name '*.hpp' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' -o -name '*.py' -o -name '*.sh' -o -name '*.cmake' -o -name CMakeLists.txt \) 2>/dev/null |
  sort | xargs awk '
function complain(message) { print message; bad = 1 }
function layer(path) {  # 0 (core) to 3 (launch), 4: an operation, 5: public; -1: not the library
  if (path !~ /^include\/tcnca\//) return -1
  for (i = 0; i < 4; i++) if (path ~ "^include/tcnca/" order[i] "/") return i
  return path ~ /^include\/tcnca\/[^\/]*$/ ? 5 : 4
}
function operation(path) { sub(/^include\/tcnca\//, "", path); sub(/[\/.].*/, "", path); return path }
function depth(path, n, i, list, d, most) {  # how many of our headers lie under this one, one inside the other
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
# Views, status, executors and shapes are the same types for every file of a program, whatever its flags; the rest is the own of each file.
/^namespace tcnca/ && FILENAME ~ /^include/ && !/inline TCNCA_TARGET/ && FILENAME !~ /\/core\/|\/shape[.]hpp$/ {
  complain(FILENAME ":" FNR ": not in namespace tcnca::inline TCNCA_TARGET")
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
  if (layer(FILENAME) >= 0 && layer(target) > layer(FILENAME)) complain(FILENAME ":" FNR ": includes " target ", which is a layer above")
  if (layer(FILENAME) >= 4 && FILENAME !~ /\/tcnca[.]hpp$/ && layer(target) >= 4 && operation(target) != operation(FILENAME))
    complain(FILENAME ":" FNR ": includes " target ", which is another operation")
  if (FILENAME ~ /^test\/reference\// && target !~ /^(test\/reference|include\/tcnca\/core)\//) complain(FILENAME ":" FNR ": includes " target ", but a reference is made of core alone")
}
END {
  for (path in files) if (layer(path) == 5 && depth(path) > 10 + (path ~ /\/tcnca.hpp$/)) {
    chain = ""
    for (next_one = deepest[path]; next_one; next_one = deepest[next_one]) chain = chain " > " next_one
    gsub(/include\/tcnca\//, "", chain)
    complain(path ": " depth(path) " headers deep, at most 10:" chain)
  }
  for (name in macros) { count++; all = all " " name }
  if (count > 7) complain("more than seven macros:" all)
  exit bad
}'
