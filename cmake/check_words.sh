#!/bin/sh
# check_words.sh [FILE]...: no retired word in these files; by default in all sources, scripts and documents except the
# change log. The words are the column `retired` of the table `| retired | use |` in CONTRIBUTING.md, with commas:
#   `word`     an identifier of lower-case letters only; searched in the code of include/ and of the given files, not in
#              comments and strings
#   `a_word`   any other identifier or piece of code; searched everywhere, case-sensitive
#   a phrase   searched everywhere, in any case
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
all=
if [ $# -eq 0 ]; then
  all=1
  cd "$root"
  set -- $(find include test bench examples cmake CMakeLists.txt ./*.md .ci -type f ! -path './CHANGELOG.md' \
    \( -name '*.hpp' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' -o -name '*.py' -o -name '*.sh' \
    -o -name '*.cmake' -o -name '*.md' -o -name CMakeLists.txt -o -name run \) | sort)
fi
awk -v all="$all" '
function trim(s) { sub(/^[ \t]+/, "", s); sub(/[ \t]+$/, "", s); return s }
# Whether text holds the word, with no letter, digit or underscore next to an end of it that is one of these.
function holds(text, word, from, at, before, after) {
  for (from = 1; at = index(substr(text, from), word); from = from + at) {
    before = from + at > 2 ? substr(text, from + at - 2, 1) : " "
    after = substr(text, from + at - 1 + length(word), 1)
    if (!(word ~ /^[A-Za-z0-9_]/ && before ~ /[A-Za-z0-9_]/) && !(word ~ /[A-Za-z0-9_]$/ && after ~ /[A-Za-z0-9_]/))
      return 1
  }
  return 0
}
function report(word) { printf "%s:%d: \"%s\", use %s\n", FILENAME, FNR, word, use[word]; bad = 1 }
FNR == 1 { file++; table = 0; in_code = !all || FILENAME ~ /^include\// }
/^\| retired \| use \|/ { table = 1 }
table && !/^\|/ { table = 0 }
file == 1 {  # CONTRIBUTING.md, for its table
  if (!table || /^\| retired/ || /^\|-/) next
  split($0, cell, "|")
  n = split(cell[2], entry, ",")
  for (i = 1; i <= n; i++) {
    word = trim(entry[i])
    if (word ~ /^`[a-z]+`$/) kind = "code"
    else if (word ~ /^`/) kind = "any"
    else { kind = "phrase"; word = tolower(word) }
    gsub(/`/, "", word)
    if (word == "") continue
    use[word] = trim(cell[3])
    words[kind, ++count[kind]] = word
  }
  next
}
table { next }
{
  for (i = 1; i <= count["any"]; i++) if (holds($0, words["any", i])) report(words["any", i])
  text = tolower($0)
  for (i = 1; i <= count["phrase"]; i++) if (holds(text, words["phrase", i])) report(words["phrase", i])
  if (!in_code || FILENAME ~ /[.](md|sh|cmake|py)$/) next
  text = $0
  gsub(/"(\\.|[^"\\])*"/, "\"\"", text)
  sub(/\/\/.*/, "", text)
  for (i = 1; i <= count["code"]; i++) if (holds(text, words["code", i])) report(words["code", i])
}
END {
  n = count["code"] + count["any"] + count["phrase"]
  if (n < 40) { print "CONTRIBUTING.md: " n + 0 " retired words: the table was not found"; bad = 1 }
  exit bad
}' "$root/CONTRIBUTING.md" "$@"
