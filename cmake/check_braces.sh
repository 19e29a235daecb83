#!/bin/sh
# check_braces.sh [FILE]...: the given files, or all sources of include, test, bench and examples. The body of each `if
# constexpr`, and of an `else` of one, must have braces: nvcc 13.0 also drops the statement that follows a discarded
# body without braces (`if constexpr (false) for (...) ...;`).
set -eu
if [ $# -eq 0 ]; then
  cd "$(dirname "$0")/.."
  set -- $(find include test bench examples -type f \
    \( -name '*.hpp' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) | sort)
fi
awk '
BEGIN {  # comments, raw strings, strings, numbers, characters, words, any other character
  token_pattern = "//|/[*]|R\"[^(]*[(]|\"(\\\\.|[^\"\\\\])*\"|[0-9][A-Za-z0-9_.\047]*|\047(\\\\.|[^\047\\\\])*\047|"
  token_pattern = token_pattern "[A-Za-z_][A-Za-z0-9_]*|[^ \t]"
}
function complain(what) { print FILENAME ":" line ": " what " has a body without braces"; bad = 1 }
# States: "if": after this word; "condition": in the parentheses of an if constexpr; "body": after them; "end": after
# the brace that ends such a body; "else", "else if": after these words that follow it.
function token(t, was) {
  was = state; state = ""
  if (was == "condition") {
    if (t == "(") open++
    else if (t == ")") open--
    state = open > 0 ? "condition" : "body"
  } else if (was == "body") {
    if (t == "{") { ours[++depth] = 1; return }
    complain("if constexpr")
  } else if ((was == "if" || was == "else if") && t == "constexpr") {
    line = FNR; open = 0; state = "condition"; count++
    return
  } else if (was == "end" && t == "else") {
    line = FNR; state = "else"
    return
  } else if (was == "else") {
    if (t == "if") { state = "else if"; return }
    if (t != "{") complain("the else of an if constexpr")
  } else if (was == "else if") complain("the else of an if constexpr")
  if (state != "") return
  if (t == "if") state = "if"
  else if (t == "{") ours[++depth] = 0
  else if (t == "}" && depth > 0 && ours[depth--]) state = "end"
}
FNR == 1 { depth = 0; state = comment = raw = "" }
{
  rest = $0
  if (!comment && !raw && rest ~ /^[ \t]*#[ \t]*(if|el|endif|include|pragma)/) next
  while (rest != "") {
    if (comment || raw) {  # skip to the end, which may be on another line
      at = index(rest, comment ? "*/" : raw)
      if (!at) next
      rest = substr(rest, at + length(comment ? "*/" : raw))
      comment = raw = ""
    }
    if (!match(rest, token_pattern)) next
    t = substr(rest, RSTART, RLENGTH)
    rest = substr(rest, RSTART + RLENGTH)
    if (t == "//") next
    if (t == "/*") comment = 1
    else {
      if (t ~ /^R"/) raw = ")" substr(t, 3, length(t) - 3) "\""
      token(t)
    }
  }
}
END {
  print count + 0 " if constexpr"
  exit bad
}' "$@"
