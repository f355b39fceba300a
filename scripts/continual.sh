#!/bin/bash
# usage: continual.sh FOLDER PART...: the runs behind "A stream of tasks" in analysis/results.md, on MNIST's IDX files in FOLDER.
#   grid         every learner's settings, on 5,000 held-out images a task (which are not trained on), seed 1
#   final        the filter, its variants and the baselines at the grid's best settings, three seeds, test images
#   sensitivity  one key of the filter at a time, seed 1
#   long         50 tasks, three seeds
#   streams      other streams (rotated by 180 degrees, split by class, blended without boundaries), with and without forgetting
# Writes analysis/continual-PART.tsv and keeps the runs under runs/continual. Runs are of one rank each, JOBS of them at a
# time (default: all processors); on 16 cores a part takes some five minutes. KWM: the program, if it is built already.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
KWM_DATA=$(CDPATH='' cd -- "${1:?usage: continual.sh FOLDER PART...}" && pwd -P)
export KWM_DATA
shift
cd "$root"
if [ -z "${KWM:-}" ]; then
  scripts/build.sh >/dev/null
  KWM=build/release/kwm
fi
export KWM
# shellcheck source=scripts/env.sh
. scripts/env.sh

processors=$(nproc --all)
held="data.validation=5000 train.schedule=constant change.threshold=0"
# Two tuned numbers in place of the job's derived rules.
tuned="filter.gain_factor=.3 filter.line_search=false filter.trust_region=.01 filter.trust_expected=0"
prior() { echo "cov.hidden.prior=$1 cov.output.prior=$1"; }
seeds() { # NAME words: one line a seed
  for seed in 1 2 3; do printf '%s-seed%s\t%s seed=%s stream.seed=%s\n' "$1" $seed "$2" $seed $seed; done
}

grid() {
  local rate damping strength expected p decay momentum
  for rate in 1e-3 3e-3 5e-3; do
    for damping in .02 .03 .05; do echo "kfac-$rate-$damping	$held learner=kfac kfac.rate=$rate kfac.damping=$damping"; done
  done
  for expected in .25 1; do
    for p in 3 10 30; do echo "kalman-$expected-$p	$held filter.trust_expected=$expected $(prior $p)"; done
  done
  for rate in 1e-3 1.5e-3 2e-3; do
    for strength in 15 30 50; do
      echo "ewc-$rate-$strength	$held learner=ewc stream.boundaries=known adam.beta2=.999 adam.rate=$rate ewc.strength=$strength"
    done
  done
  for rate in 5e-4 1e-3 2e-3; do
    for strength in 1 2 4; do
      echo "si-$rate-$strength	$held learner=si stream.boundaries=known adam.beta2=.999 adam.rate=$rate si.strength=$strength"
    done
  done
  for rate in 7e-5 1.5e-4 3e-4 1e-3; do
    for decay in .999 .9999; do echo "adam-$rate-$decay	$held learner=adam adam.beta2=$decay adam.rate=$rate"; done
  done
  for rate in 3e-4 7e-4 2e-3 5e-3; do
    for momentum in 0 .9; do echo "sgd-$rate-$momentum	$held learner=sgd sgd.momentum=$momentum sgd.rate=$rate"; done
  done
}

# The words of a learner's best row in the grid, without those that held images out.
best() {
  awk -F '\t' -v learner="$1-" 'index($1, learner) == 1 && $11 + 0 > best + 0 { best = $11; words = $15 } END { print words }' \
    analysis/continual-grid.tsv | sed 's/data.validation=5000//; s/change.threshold=0//'
}

# After the grid.
final() {
  seeds kalman ""
  seeds kalman-quarter "filter.trust_expected=.25"
  seeds kalman-tuned "$tuned"
  seeds kalman-stage "$tuned sensitivity=stage"
  seeds kalman-exact "filter.evidence=exact"
  seeds kalman-no-eigenbasis "cov.hidden.structure=diag cov.output.structure=diag"
  seeds kalman-inflate "change.reaction=inflate change.inflation=2"
  for learner in kfac ewc si adam sgd; do seeds $learner "$(best $learner)"; done
}

# Every key's line begins with the value of jobs/continual.yaml, or of the tuned numbers for the keys that it derives; those
# runs are made once.
sensitivity() {
  local key base value values words
  printf 'default:0:1\tseed=1\ntuned:0:1\tseed=1 %s\n' "$tuned"
  while read -r key base _ values; do
    for value in $values; do
      case $key in
      cov.prior) words=$(prior "$value") ;;
      cov.refresh) words="cov.hidden.refresh=$value cov.output.refresh=$value" ;;
      *) words=$key=$value ;;
      esac
      [ "$base" = default ] || words="$tuned $words"
      printf '%s\t%s seed=1\n' "$key:$value:1" "$words"
    done
  done <<<"$keys"
}
keys="cov.prior default 10 1 3 30 100
filter.trust_expected default 1 .1 .25 .5 2
train.batch default 100 50 200 400
cov.refresh default 100 50 200
filter.gain_factor tuned .3 .1 .2 .5 1
filter.trust_region tuned .01 .001 .003 .03 .1"

long() {
  seeds kalman-tuned "stream.tasks=50 $tuned"
  seeds kalman "stream.tasks=50"
}

streams() {
  local name stream
  while read -r name stream; do
    for learner in "kalman $tuned" "kalman-forgets $tuned filter.forgetting=.9999" "kalman-diffuses $tuned filter.process_noise=1e-6" \
      "kalman-inflates $tuned change.reaction=inflate change.inflation=2" \
      "ewc learner=ewc train.schedule=constant adam.beta2=.999 adam.rate=1e-3 ewc.strength=30 stream.boundaries=known" \
      "adam learner=adam train.schedule=constant adam.beta2=.999 adam.rate=3e-4"; do
      [ "$name" != blended ] || [ "${learner%% *}" != ewc ] || continue
      echo "$name:${learner%% *}	$stream $(echo "$learner" | cut -s -d ' ' -f 2-)"
    done
  done <<STREAMS
rotated stream.kind=rotated stream.angle=180
split stream.kind=split stream.tasks=5
blended stream.boundaries=blended stream.blend=0.5
STREAMS
}

# One run; its row: name, words, then the last row of tasks.tsv but for the single tasks.
run_one() {
  local name=${1%%$'\t'*} words=${1#*$'\t'} dir
  dir=runs/continual/$PART/$name
  rm -rf "$dir"
  # shellcheck disable=SC2086
  TMPDIR=$(mktemp -d) "$KWM" train jobs/continual.yaml --output "$dir" layout.stages=1 train.chunks=1 $words >/dev/null 2>"$dir.err" || :
  rm -rf "$dir/checkpoints"
  awk -F '\t' -v OFS='\t' -v name="$name" -v words="$words" '{ last = $0 } END {
    n = split(last, cell); row = name OFS (n > 1 ? "done" : "failed")
    for (k = 2; k <= 13; k++) row = row OFS (k <= n ? cell[k] : "nan")
    print row, words }' "$dir/tasks.tsv" 2>/dev/null || printf '%s\tfailed\t%s\n' "$name" "$words"
}
export -f run_one

# sensitivity: key:value:seed as columns, and the default's rows under every key.
split_names() {
  local lines
  lines=$(awk -F '\t' -v OFS='\t' -v keys="$keys" 'BEGIN { n = split(keys, line, "\n") }
    /^#/ { print; next }
    { name = $1; $1 = ""; rest = substr($0, 2) }
    name == "name" { print "key", "value", "seed", rest; next }
    { split(name, part, ":") }
    part[1] != "default" && part[1] != "tuned" { print part[1], part[2], part[3], rest; next }
    { for (k = 1; k <= n; k++) { split(line[k], word, " "); if (word[2] == part[1]) print word[1], word[3], part[3], rest } }' "$1")
  printf '%s\n' "$lines" >"$1"
}

for PART in "$@"; do
  export PART
  mkdir -p "runs/continual/$PART"
  table=analysis/continual-$PART.tsv
  "$PART" | tr '\n' '\0' | xargs -0 -P "${JOBS:-$processors}" -I{} bash -c 'run_one "$1"' _ {} >"runs/continual/$PART.rows"
  {
    echo "# scripts/continual.sh FOLDER $PART, commit ${COMMIT:-$("$KWM" version | sed -n "s/^commit\t//p")}, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), ${JOBS:-$processors} runs of one rank at a time"
    printf 'name\tstatus\ttasks\tseconds\taverage_accuracy\tforgetting\tforgetting_best\tbackward_transfer\tforward_transfer\tplasticity\taverage_held_out\tnis_first\tnis_last\tshortened\twords\n'
    sort "runs/continual/$PART.rows"
  } >"$table"
  [ "$PART" != sensitivity ] || split_names "$table"
  echo "$table: $(($(wc -l <"$table") - 2)) runs"
done
