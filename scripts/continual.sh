#!/bin/bash
# usage: continual.sh FOLDER PART...: the runs behind the README's section on continual learning, on MNIST's IDX files in FOLDER.
#   grid         every learner's settings, on 5,000 held-out images a task (which are not trained on), seed 1
#   final        the filter, its variants and the baselines at their best settings, three seeds, test images
#   sensitivity  one key of the filter at a time, two seeds
#   long         50 tasks, three seeds
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
prior() { echo "cov.hidden.prior=$1 cov.output.prior=$1"; }
seeds() { # NAME words: one line a seed
  for seed in 1 2 3; do printf '%s-seed%s\t%s seed=%s stream.seed=%s\n' "$1" $seed "$2" $seed $seed; done
}

grid() {
  local rate damping strength gain p
  for rate in 3e-4 1e-3 3e-3; do
    for damping in .01 .03 .1; do echo "kfac-$rate-$damping	$held learner=kfac kfac.rate=$rate kfac.damping=$damping"; done
  done
  for gain in .2 .3 .5; do
    for p in 3 10 30; do echo "kalman-$gain-$p	$held filter.gain_factor=$gain $(prior $p)"; done
  done
  for rate in 3e-4 1e-3; do
    for strength in 3 10 30 100 300; do
      echo "ewc-$rate-$strength	$held learner=ewc stream.boundaries=known adam.beta2=.999 adam.rate=$rate ewc.strength=$strength"
    done
    for strength in .03 .1 .3 1 3; do
      echo "si-$rate-$strength	$held learner=si stream.boundaries=known adam.beta2=.999 adam.rate=$rate si.strength=$strength"
    done
  done
  for rate in 3e-5 1e-4 3e-4 1e-3 3e-3 1e-2; do
    echo "adam-$rate	$held learner=adam adam.beta2=.999 adam.rate=$rate"
  done
  for rate in 1e-4 3e-4 1e-3 3e-3 1e-2 3e-2; do echo "sgd-$rate	$held learner=sgd sgd.rate=$rate"; done
}

# The baselines' settings are the grid's best by held-out accuracy.
final() {
  seeds kalman ""
  seeds kalman-stage "sensitivity=stage"
  seeds kalman-exact "filter.evidence=exact"
  seeds kalman-no-eigenbasis "cov.hidden.structure=diag cov.output.structure=diag"
  seeds kalman-inflate "change.reaction=inflate change.inflation=2"
  seeds kfac "train.schedule=constant learner=kfac kfac.rate=1e-3 kfac.damping=.03"
  seeds ewc "train.schedule=constant learner=ewc stream.boundaries=known adam.beta2=.999 adam.rate=1e-3 ewc.strength=100"
  seeds si "train.schedule=constant learner=si stream.boundaries=known adam.beta2=.999 adam.rate=1e-3 si.strength=.3"
  seeds adam "train.schedule=constant learner=adam adam.beta2=.999 adam.rate=1e-4"
  seeds sgd "train.schedule=constant learner=sgd sgd.rate=1e-3"
}

sensitivity() {
  local key value seed
  for seed in 1 2; do
    while read -r key values; do
      for value in $values; do
        case $key in
        cov.prior) words=$(prior "$value") ;;
        *) words=$key=$value ;;
        esac
        printf '%s\t%s seed=%s stream.seed=%s\n' "$key:$value:$seed" "$words" "$seed" "$seed"
      done
    done <<KEYS
cov.prior 1 3 10 30 100
filter.gain_factor .1 .2 .3 .5 1
filter.trust_region .001 .003 .01 .03 .1
train.batch 50 100 200 400
cov.hidden.refresh 50 100 200
KEYS
  done
}

long() { seeds kalman "stream.tasks=50 $(prior 30)"; }

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
  echo "$table: $(($(wc -l <"$table") - 2)) runs"
done
