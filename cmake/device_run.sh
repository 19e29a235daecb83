#!/bin/bash
# run.sh <results>: tests and measures tcnca on this machine's GPU with the programs in the folder of this script, in
# less than eight minutes; nothing is installed. Writes <results>/<name of the GPU>: summary.txt (a line per step),
# steps.json, log.txt (all output) and the JSON files of the benchmarks. A step that fails or exceeds its time does
# not stop the others. Exit status: 0 if all steps passed, 1 if not, 2 without a GPU.
set -u
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 1 ] || { echo "usage: run.sh <folder for the results>" >&2; exit 2; }
gpu=$(nvidia-smi --id=0 --query-gpu=name --format=csv,noheader 2>/dev/null) || gpu=
[ -n "$gpu" ] || { echo "run.sh: nvidia-smi finds no GPU here, so nothing was run." >&2; exit 2; }
results=$1/$(printf %s "$gpu" | tr -c 'A-Za-z0-9' _)
mkdir -p "$results" || exit 2
results=$(cd "$results" && pwd)
log=$results/log.txt
summary=$results/summary.txt
rm -f "$results"/*.json "$log" "$summary"

# The toolkit's libraries: of the toolkit, or of its Python packages.
toolkit=
packages=$(python3 -c 'import nvidia; [print(p + "/cu13/lib") for p in nvidia.__path__]' 2>/dev/null)
for folder in "${CUDA_HOME:-/usr/local/cuda}/lib64" $packages; do
  [ ! -d "$folder" ] || toolkit=$toolkit:$folder
done
export LD_LIBRARY_PATH=$here/lib$toolkit${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LC_ALL=C
export TCNCA_REQUIRE_CUDA=1  # a skipped test is a failure
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

steps=0 passed=0 rows=
begin=$SECONDS
# phase <seconds>: the time limit of the following steps together.
phase() { phase_end=$((SECONDS + $1)); }
# step <name> <seconds> <command>...
step() {
  local name=$1 limit=$2 left=$((phase_end - SECONDS)) from status seconds outcome
  shift 2
  [ "$left" -ge "$limit" ] || limit=$left
  steps=$((steps + 1)) seconds=0 status=0
  echo "=== $name: $*" >>"$log"
  if [ "$limit" -lt 1 ]; then
    outcome="no time left"
  elif ! command -v "$1" >/dev/null; then
    outcome="not found: $(basename "$1")"
  else
    from=$EPOCHREALTIME
    timeout --kill-after=5 "$limit" "$@" >>"$log" 2>&1 </dev/null
    status=$?
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $from }")
    case $status in
      0) outcome=passed passed=$((passed + 1)) ;;
      124 | 137) outcome="time limit" ;;
      *) outcome="failed ($status)" ;;
    esac
  fi
  echo "=== $name: $outcome" >>"$log"
  printf '%-44s %-20s %6s s of %4s s\n' "$name" "$outcome" "$seconds" "$limit" | tee -a "$summary"
  rows="$rows${rows:+,}
    { \"name\": \"$name\", \"outcome\": \"$outcome\", \"seconds\": $seconds, \"limit\": $limit }"
}

{
  echo "tcnca $(cat "$here/commit" 2>/dev/null || echo unknown) on $gpu, $(date -u +%Y-%m-%dT%H:%MZ)"
  nvidia-smi --id=0 --query-gpu=driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null
} | tee "$summary"

# 1. All tests.
phase "${TCNCA_TEST_SECONDS:-180}"
for program in "$here"/bin/test_*_cuda; do
  [ -e "$program" ] && step "$(basename "$program")" 60 "$program" --gtest_brief=1
done

# 2. Short forms of the benchmarks. Each measures the peak that it compares with: copy bandwidth, or products.
phase "${TCNCA_BENCH_SECONDS:-180}"
step conv_vs_fft 60 "$here/bin/conv_vs_fft" --backend cuda --lengths 4096,32768,131072 --stacks K4f4D6,K17f16D4 \
  --time-limit 30 --output "$results/conv_vs_fft.json"
step attention_vs_gemm 60 "$here/bin/attention_vs_gemm" --backend cuda --chunks 512,2048 --masks causal --min-time 0.1 \
  --output "$results/attention.json"
for stem in gated_fusion ema; do
  step ${stem}_bench 40 "$here/bin/${stem}_bench" --benchmark_filter=cuda --benchmark_min_time=0.1 \
    --benchmark_out="$results/$stem.json" --benchmark_out_format=json
done
rm -f "$results"/*.md  # the tables are in the log

# 3. Some tests with compute-sanitizer.
phase "${TCNCA_SANITIZER_SECONDS:-105}"
export TCNCA_TEST_COUNT=2 TCNCA_TEST_ORDERS=1
for tool in memcheck racecheck; do
  for stem in conv_stack_causal conv_stack_16bit conv_stack_two_sided chunked_attention_softmax \
    chunked_attention_16bit gated_fusion_gates ema_passes; do
    step "$tool $stem" 15 compute-sanitizer --tool $tool --error-exitcode 9 "$here/bin/test_${stem}_cuda" \
      --gtest_brief=1 --gtest_filter='*at_random_extents*'
  done
done

printf '%d of %d steps passed in %d s.\n' $passed $steps $((SECONDS - begin)) | tee -a "$summary"
printf '{\n  "gpu": "%s",\n  "commit": "%s",\n  "seconds": %d,\n  "passed": %d,\n  "steps": [%s\n  ]\n}\n' \
  "$gpu" "$(cat "$here/commit" 2>/dev/null || echo unknown)" $((SECONDS - begin)) $passed "$rows" >"$results/steps.json"
echo "Results: $results"
[ $passed -eq $steps ]
