#!/bin/sh
# check_format.sh [ROOT]: clang-format 14 leaves all C++ and CUDA sources unchanged, and no line of a source, script or
# document has more than 120 columns, except in tables of .md files. Exit status 77: there is no clang-format 14; the
# length of lines was checked.
set -eu
cd "${1:-$(dirname "$0")/..}"
export LC_ALL=C.UTF-8
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find include test bench examples -type f \
  \( -name '*.hpp' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) | sort >"$list"
others=$(find include test bench examples cmake ./*.md .ci CMakeLists.txt -type f \
  \( -name '*.py' -o -name '*.sh' -o -name '*.cmake' -o -name '*.md' -o -name CMakeLists.txt -o -name run \) | sort)
bad=0
# shellcheck disable=SC2046,SC2086
long=$(grep -nHE '^.{121}' $(cat "$list") $others | grep -vE '^[^:]*[.]md:[0-9]+:[|]' | cut -c 1-160)
if [ -n "$long" ]; then
  printf '%s\nThese lines have more than 120 columns.\n' "$long"
  bad=1
fi
for clang_format in clang-format-14 clang-format ''; do
  [ -n "$clang_format" ] || break
  command -v "$clang_format" >/dev/null || continue
  case $("$clang_format" --version) in *'version 14.'*) break ;; esac
done
if [ -n "$clang_format" ]; then
  xargs "$clang_format" --dry-run -Werror --ferror-limit=1 <"$list" || bad=1
elif [ "$bad" -eq 0 ]; then
  echo "skipped: clang-format 14 was not found; other versions format differently"
  exit 77
fi
exit $bad
