#!/bin/bash
# usage: gpu.sh FOLDER [pass|continual|accuracy|scaling ...]: the numbers of analysis/results.md, "On GPUs", with the MNIST files in
# FOLDER: one pass of sequential MNIST, a task of the continual stream, 30 passes, and one GPU against 2, 4, ... GPUS
# (environment; 2 unless said, 1: one alone). Every line by tabs: part, ranks, keys, steps per second, samples per second,
# seconds, test accuracy, and the share of the time that messages and sums between ranks take. KWM: the program.
set -eu -o pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd -- "$root"
if [ $# -lt 1 ]; then
  echo "usage: gpu.sh FOLDER [pass|continual|accuracy|scaling ...]" >&2
  exit 2
fi
KWM_DATA=$(CDPATH='' cd -- "$1" && pwd -P)
export KWM_DATA
shift
kwm=${KWM:-build/release/kwm}
# shellcheck source=scripts/env.sh
. scripts/env.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
number=0

# train PART RANKS JOB FROM KEY...: the rate from the first row of metrics.tsv at step FROM or later to the last, seconds and
# test accuracy of the whole run.
train() {
  local part=$1 ranks=$2 job=$3 from=$4
  shift 4
  number=$((number + 1))
  local folder=$scratch/$number
  if ! mpirun -q -n "$ranks" "$kwm" train "jobs/$job.yaml" --output "$folder" backend=cuda "$@" >"$folder.log" 2>&1 </dev/null; then
    echo "gpu.sh: $part failed: $(tail -n 1 "$folder.log")" >&2
    return 1
  fi
  if grep -q 'going on with backend cpu' "$folder.log"; then
    echo "gpu.sh: $(grep 'going on' "$folder.log")" >&2
    exit 77
  fi
  awk -F'\t' -v OFS='\t' -v part="$part" -v ranks="$ranks" -v keys="$*" -v from="$from" '
    NR == 1 { for (k = 1; k <= NF; k++) at[$k] = k; next }
    $at["step"] + 0 >= from + 0 && !begun { begun = 1; step = $at["step"]; samples = $at["samples"]; seconds = $at["seconds"] }
    { s = $at["step"]; n = $at["samples"]; t = $at["seconds"] }
    $at["test_accuracy"] != "nan" { test = $at["test_accuracy"] }
    { comm = $at["comm_fraction"] }
    END { print part, ranks, keys, sprintf("%.0f", (s - step) / (t - seconds)), sprintf("%.0f", (n - samples) / (t - seconds)), t, test, comm }
  ' "$folder/metrics.tsv"
}

one=(layout.stages=1 train.chunks=1)
# Eigenbases are worked out beside the steps (part scaling: not).
late=(cov.hidden.delay=50 cov.output.delay=50)
part_pass() {
  for seed in 1 2 3; do train pass 1 seqmnist 50 "${one[@]}" "${late[@]}" train.epochs=1 seed=$seed; done
  for seed in 1 2 3; do train pass 1 seqmnist 600 "${one[@]}" "${late[@]}" train.epochs=3 seed=$seed; done
  train pass 1 seqmnist 600 "${one[@]}" "${late[@]}" train.epochs=3 precision=tf32
}
part_continual() {
  train continual 1 continual 600 "${one[@]}" "${late[@]}"
  train continual 1 continual 600 "${one[@]}" "${late[@]}" filter.gain_factor=0.3 filter.line_search=false filter.trust_region=0.01 filter.trust_expected=0
}
part_accuracy() {
  for seed in 1 2 3; do train accuracy 1 seqmnist-cuda 300 seed=$seed; done
  for seed in 1 2 3; do train accuracy 1 seqmnist-cuda 300 seed=$seed data.shift=0 model.dropout=0.7; done
}
# Steps alone: no checkpoint at the end of a pass, which comes sooner on more GPUs.
still=(report.every=10 checkpoint.every=1000000000)

# One replica's layers, or its blocks, on two GPUs, in one chunk and in two; once with messages through the host.
split() {
  for batch in "$@"; do
    for chunks in 1 2; do
      local keys=("${still[@]}" train.epochs=3 train.batch="$batch" "train.chunks=$chunks")
      train stages 2 seqmnist 60 "${keys[@]}" layout.stages=2
      train owners 2 seqmnist 60 "${keys[@]}" layout.stages=1 layout.owners=2
    done
  done
  train stages 2 seqmnist 60 "${still[@]}" train.epochs=2 train.chunks=1 layout.stages=2 layout.messages=host
  train owners 2 seqmnist 60 "${still[@]}" train.epochs=2 train.chunks=1 layout.stages=1 layout.owners=2 layout.messages=host
}

# weak: as many samples for each GPU, and as many steps, three times. strong: the same batch.
part_scaling() {
  local batches=(100 500 1000)
  for repeat in 1 2 3; do
    for batch in "${batches[@]}"; do
      train scaling 1 seqmnist 60 "${still[@]}" "${one[@]}" train.epochs=3 train.batch="$batch"
      for ((ranks = 2; ranks <= ${GPUS:-2}; ranks *= 2)); do
        local replicas=("${still[@]}" layout.stages=1 "layout.replicas=$ranks" "train.chunks=$ranks")
        train weak "$ranks" seqmnist 60 "${replicas[@]}" train.epochs=$((3 * ranks)) train.batch=$((ranks * batch))
        [ "$repeat" = 1 ] || continue
        train strong "$ranks" seqmnist 60 "${replicas[@]}" train.epochs=3 train.batch="$batch"
      done
    done
  done
  if [ "${GPUS:-2}" -ge 2 ]; then split "${batches[@]}"; fi
}

if [ $# -eq 0 ]; then set -- pass continual accuracy scaling; fi
printf 'part\tranks\tkeys\tsteps_per_s\tsamples_per_s\tseconds\ttest_accuracy\tcomm\n'
for part in "$@"; do "part_$part"; done
