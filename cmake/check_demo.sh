#!/bin/bash
# check_demo.sh <cmake>: tests the demo's script with programs that only write results. Without TCNCA_DEMO_SECONDS,
# and with at least three minutes, the report is the full one; with less it has the same sections and says that it is
# the short form. An invalid value ends the script with a sentence.
set -euo pipefail
cmake=$1
script=$(cd "$(dirname "$0")" && pwd)/demo.cmake
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "check_demo: $*"; exit 1; }

# Each program writes its arguments to `said` and its results to --output; the language model also a text.
cat > "$folder/program" <<'END'
#!/bin/bash
echo "$(basename "$0") $*" >> "$(dirname "$0")/said"
while [ $# -gt 0 ]; do
  case $1 in
    --output) output=$2 ;;
    --generate) echo "The sample." ;;
  esac
  shift
done
[ -n "${output:-}" ] || exit 0
case $(basename "$0") in
  conv) echo '{"machine": {"commit": "abc1234"}, "rows": []}' > "$output"; echo "conv table" > "${output%.json}.md" ;;
  recall) mkdir -p "$output"; echo "recall table" > "$output/results.md" ;;
  language) mkdir -p "$output"; echo "language table" > "$output/side_by_side.md" ;;
esac
END
chmod +x "$folder/program"
for name in conv recall language; do cp "$folder/program" "$folder/$name"; done

demo() {
  rm -f "$folder/said" "$folder/report.md"
  "$cmake" -D CONV_VS_FFT="$folder/conv" -D RECALL="$folder/recall" -D LANGUAGE="$folder/language" -D TEXT=text \
    -D RESULTS="$folder/results" -D REPORT="$folder/report.md" -P "$script"
}
complete() {
  for part in "commit abc1234" "conv table" "recall table" "language table" "The sample."; do
    grep -q "$part" "$folder/report.md" || fail "the report with '${TCNCA_DEMO_SECONDS:-}' lacks '$part'"
  done
}

for value in "" 180 3600; do
  TCNCA_DEMO_SECONDS=$value
  export TCNCA_DEMO_SECONDS
  demo >/dev/null 2>&1 || fail "'$value' failed"
  complete
  ! grep -q "Short form" "$folder/report.md" || fail "'$value' gave the short form"
  grep -q "conv.*--lengths 1024,4096,16384,65536,131072" "$folder/said" ||
    fail "'$value' lacks lengths: $(cat "$folder/said")"
done
export TCNCA_DEMO_SECONDS=60
demo >/dev/null 2>&1 || fail "60 failed"
complete
grep -q "Short form: TCNCA_DEMO_SECONDS is 60. .*left out" "$folder/report.md" ||
  fail "the report does not say that it is the short form"
# One limit of the measurements, one for each of two models, one for each of three.
limits=$(grep -o -- "--time-limit [0-9]*" "$folder/said" | awk '{s += $2 * NR} END {print s}')
[ "$limits" -le 60 ] || fail "the limits of the short form add up to $limits s"
for value in abc 0 29 3601 -60 60.5 1e2 " 60" 99999999999999999999; do
  TCNCA_DEMO_SECONDS=$value
  if said=$(demo 2>&1); then fail "'$value' was taken"; fi
  tr -s " \n" " " <<<"$said" | grep -q "must be a whole number from 30 to 3600" || fail "'$value': $said"
  [ ! -e "$folder/report.md" ] || fail "'$value' left a report"
done
echo "check_demo: all as expected"
