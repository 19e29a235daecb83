#!/bin/bash
# gather_corpus.sh [FILE]: makes a corpus of English prose (5.8 MB, build/corpus.txt unless named) of Debian's package
# perl-doc: the manual of Perl without its code, tables and translations. For Debian 12 or Ubuntu; the package is
# unpacked aside, not installed. The same version of the package gives the same bytes.
set -euo pipefail
export LC_ALL=C

package=perl-doc
output=$(realpath -m -- "${1:-$(dirname "$0")/../../build/corpus.txt}")

fail() { echo "gather_corpus: $*" >&2; exit 1; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  fail "needs apt-get and dpkg-deb: the text is in the Debian package $package"
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "\"$*\" needs root or sudo"
  fi
}

mkdir -p -- "$(dirname -- "$output")"
aside=$(mktemp -d -- "$output.XXXXXX")
trap 'rm -rf -- "$aside"' EXIT

# pod2text, which turns Perl's documentation into plain text, comes with Perl; a bare container has not even that.
command -v pod2text >/dev/null ||
  as_root sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends perl >/dev/null'
download() { (cd -- "$aside" && apt-get -qq -o APT::Sandbox::User=root download "$package"); }
download 2>/dev/null || { as_root apt-get update -qq && download; } || fail "apt-get could not download $package"
dpkg-deb -x "$aside/$package"_*.deb "$aside/unpacked"

# Left out: lists of what other files say (perltoc) or of Unicode's properties (perluniprops), a copy (perldelta), and
# what is not English. The order is that of checksums of the names, not of the alphabet, so that the parts of a split
# are of one kind.
mapfile -t files < <(cd -- "$aside/unpacked/usr/share/perl" && find . -name '*.pod' -type f -print |
  grep -vE '/perl(toc|uniprops|delta|cn|jp|ko|tw)[.]pod$' |
  while read -r file; do echo "$(basename "$file" | cksum | cut -d ' ' -f 1) $file"; done |
  sort -k 1n -k 2 | cut -d ' ' -f 2)
[ ${#files[@]} -gt 0 ] || fail "$package holds no text where it is expected, in /usr/share/perl"

# An indented paragraph is code or a table. A paragraph of prose becomes one line of printable ASCII.
for file in "${files[@]}"; do
  awk 'BEGIN { RS = ""; ORS = "\n\n" } !/^[ \t]/' "$aside/unpacked/usr/share/perl/$file" |
    pod2text --indent=0 --width=1000000 --errors=none |
    tr -cd '\n\40-\176' | sed 's/^ *//; s/ *$//' | cat -s
done >"$aside/corpus"

size=$(stat -c %s -- "$aside/corpus")
[ "$size" -ge 5000000 ] || fail "only $size bytes of text were found in $package, which should hold 5 MB"
mv -- "$aside/corpus" "$output"
echo "$output has $size bytes of ${#files[@]} files of $(cd -- "$aside" && echo "$package"_*.deb)"
echo "SHA-256 $(sha256sum <"$output" | cut -d ' ' -f 1)"
