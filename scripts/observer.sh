#!/bin/bash
# usage: observer.sh FOLDER RUN [tune | shifts | rows | single | own | low | drift ...]: the evaluations behind analysis/observer.tsv of a language model
# trained before (kwm train jobs/wikitext2.yaml --output RUN), on the texts in FOLDER; output of each goes to runs/observer, all together
# as a table to standard output. GPUS: how many GPUs (default 1; 0: a host), JOBS: evaluations at once (default 2 a GPU), OWN: a text of
# your own for `own`, KWM: the program, RUNS: where to, JOB: what drift trains.
#   tune    on validation text: bias, its decay, rates of moving weights; what is best is used by the parts after it
#   shifts  clean, and three shifts with three seeds: correction, bias, cache, moving weights, with and without correction
#   rows    the same shifts and seeds: rows of the read-out beside bias, beside weights that move by RMS and by SGD, and on top of them
#   single  clean and vocab-permute once more, all of the text as one stream
#   own     the same on the text OWN, as it is and with every two neighbours exchanged; tuned by nothing
#   low     low rank, bias and full in blocks of tokens beside the full one token by token, one evaluation a GPU, for times
#   drift   documents by topic, a shift that comes and goes, learned while they are read, in 64 and in 16 streams: adam, kalman, with correction
# SEEDS: of the shifts (default "1 2 3"). Without tune, what tuning on the model of jobs/wikitext2.yaml gave is used.
set -eu -o pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
if [ $# -lt 2 ]; then
  echo "usage: observer.sh FOLDER RUN [tune | shifts | rows | single | own | low | drift ...]" >&2
  exit 2
fi
export KWM_DATA=$1 run=$2
shift 2
[ $# -gt 0 ] || set -- tune shifts rows single own low drift
. "$root/scripts/env.sh"
export kwm=${KWM:-$root/build/release/kwm} out=${RUNS:-runs}/observer gpus=${GPUS:-1}
jobs=${JOBS:-$((gpus > 0 ? 2 * gpus : 2))}
mkdir -p "$out"

# evaluate NAME RUN key=value ...: one line of the queue
evaluate() {
  local name=$1 of=$2
  shift 2
  [ "$gpus" -eq 0 ] || export CUDA_VISIBLE_DEVICES=$((SLOT % gpus))
  "$kwm" eval "$of" "$@" >"$out/$name.part" 2>"$out/$name.log" || {
    echo "observer.sh: $name: $(tail -n 1 "$out/$name.log")" >&2
    return 0
  }
  { echo "keys	$*"; cat "$out/$name.part"; } >"$out/$name.txt"
  rm "$out/$name.part"
}
export -f evaluate
# The lines of standard input, `jobs` at once.
queue() {
  xargs -r -P "$jobs" --process-slot-var=SLOT -L 1 bash -c 'evaluate "$@"' _
}

# best GROUP: the keys behind "--" of the group's evaluations with the least sum of logarithms of the perplexity named first
best() {
  /usr/bin/python3 - "$out" "$1" "$2" <<'PYTHON'
import glob, math, sys
folder, group, name = sys.argv[1:]
sums = {}
for path in glob.glob("%s/tune-%s-*.txt" % (folder, group)):
    rows = dict(line.rstrip("\n").split("\t", 1) for line in open(path) if "\t" in line)
    keys = " ".join(word for word in rows["keys"].split() if not word.startswith(("shift.", "correction.split", "correction.streams")))
    value = float(rows.get(name + "_perplexity", "nan"))
    sums[keys] = sums.get(keys, 0) + (math.log(value) if value == value else 1e9)
print(min(sums, key=sums.get) if sums else "")
PYTHON
}

streams=correction.streams=${STREAMS:-16}
topk="correction.kind=full correction.form=topk correction.prior=1 correction.noise=1e-3"
one="correction.kind=full correction.form=observed correction.prior=1 correction.noise=1e-3"
leaning="correction.bias=2 correction.bias_decay=.9999" words="correction.kind=bias correction.bias=2 correction.bias_decay=.9999"
low="correction.kind=lowrank correction.prior=1 correction.noise=1e-4 correction.every=32"
cache="baseline.kind=cache baseline.window=500 baseline.theta=.1 baseline.share=.2"

tune() {
  local k=0 shift keys
  for shift in none vocab-permute; do
    for keys in bias={1,2,4}" correction.bias_decay="{.9995,.9999,.99997}; do
      echo "tune-bias-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift correction.kind=bias correction.$keys"
    done
    for keys in .1 .3; do
      echo "tune-dynamic-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift baseline.kind=dynamic baseline.rate=$keys"
    done
    for keys in .0003 .001; do
      echo "tune-rms-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift baseline.kind=rms baseline.rate=$keys"
    done
    for keys in theta={.1,.3}" baseline.share="{.1,.2}; do
      echo "tune-cache-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift baseline.kind=cache baseline.window=500 baseline.$keys"
    done
  done | queue
  k=0
  local bias
  bias=$(best bias corrected)
  for shift in none vocab-permute; do
    for keys in .1 .3 1; do
      echo "tune-both-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift ${bias/kind=bias/kind=full} correction.form=topk" \
        "correction.prior=$keys correction.noise=1e-3"
    done
    for keys in .1 .5 2; do
      echo "tune-moved-$((k += 1)) $run correction.split=valid $streams shift.kind=$shift $(best rms rms)" \
        "correction.kind=bias correction.bias=$keys correction.bias_decay=.9999"
    done
  done | queue
}

# pieces PREFIX key=value ...: everything at one shift
pieces() {
  local name=$1
  shift
  local bias both dynamic rms cached moved
  bias=$(best bias corrected) both=$(best both corrected) dynamic=$(best dynamic dynamic) rms=$(best rms rms)
  cached=$(best cache cache) moved=$(best moved rms_corrected)
  echo "$name-blocks $run $streams $* $low $leaning"
  echo "$name-observed $run $streams $* $one"
  echo "$name-bias $run $streams $* ${bias:-$words} ${cached:-$cache}"
  echo "$name-moved $run $streams $* ${moved:-correction.kind=bias correction.bias=.1 correction.bias_decay=.9999 ${rms:-baseline.kind=rms baseline.rate=.0003}}"
  echo "$name-both $run $streams $* ${both:-${topk/prior=1/prior=.1} $leaning} ${dynamic:-baseline.kind=dynamic baseline.rate=.3}"
  echo "$name-topk $run $streams $* $topk ${cached:-$cache}"
}

shifts() {
  local seed shift
  {
    case " ${SEEDS:-1} " in *" 1 "*) pieces clean-1 shift.kind=none ;; esac
    for seed in ${SEEDS:-1 2 3}; do
      for shift in token-dropout vocab-permute both; do pieces "$shift-$seed" shift.kind=$shift shift.seed=$seed; done
    done
    case " ${SEEDS:-1} " in *" 1 "*) pieces random-1 shift.kind=random | grep -e -topk -e -bias ;; esac
  } | queue
}

rows() {
  local seed shift keys="$words correction.every=16 correction.readout=1e-3"
  for seed in ${SEEDS:-1 2 3}; do
    for shift in none token-dropout vocab-permute both; do
      [ $shift$seed = none1 ] || [ $shift != none ] || continue
      echo "rows-rms-$shift-$seed $run $streams shift.kind=$shift shift.seed=$seed $keys baseline.kind=rms baseline.rate=.0003"
      echo "rows-sgd-$shift-$seed $run $streams shift.kind=$shift shift.seed=$seed $keys baseline.kind=dynamic baseline.rate=.1"
    done
  done | queue
}

single() {
  local streams=correction.streams=1
  { pieces single-clean-1 shift.kind=none
    pieces single-vocab-permute-1 shift.kind=vocab-permute
  } | grep -e -blocks -e -bias -e -moved | sed 's/ baseline.kind=cache.*//' | queue
}

own() {
  local swapped=$out/swapped.txt
  [ -n "${OWN:-}" ] || { echo "observer.sh: own: wanted a text in OWN" >&2; return 0; }
  awk '{ for (k = 1; k < NF; k += 2) { t = $k; $k = $(k + 1); $(k + 1) = t } print }' "$OWN" >"$swapped"
  { pieces own-1 data.test="$(realpath "$OWN")" shift.kind=none
    pieces swapped-1 data.test="$(realpath "$swapped")" shift.kind=none
  } | queue
}

low() {
  local shift jobs=$((gpus > 0 ? gpus : 1)) every
  for shift in none vocab-permute token-dropout both; do
    echo "low-$shift-lowrank32 $run $streams shift.kind=$shift $low"
    echo "low-$shift-bias1 $run $streams shift.kind=$shift $words"
    echo "low-$shift-bias32 $run $streams shift.kind=$shift $words correction.every=32"
    echo "low-$shift-both32 $run $streams shift.kind=$shift $low $leaning"
    echo "low-$shift-full1 $run $streams shift.kind=$shift $one"
    case $shift in token-dropout | both) continue ;; esac
    for every in 16 64; do echo "low-$shift-lowrank$every $run $streams shift.kind=$shift $low correction.every=$every"; done
    echo "low-$shift-full32 $run $streams shift.kind=$shift $one correction.every=32"
    echo "low-$shift-full32small $run $streams shift.kind=$shift $one correction.every=32 correction.noise=1e-5"
    echo "low-$shift-full32adapt $run $streams shift.kind=$shift $one correction.every=32 correction.noise=1e-5 correction.adapt=.1"
  done | queue
}

# What learns in so many streams: keys, a line each.
learners() {
  local rates=".0005 .001 .002" bound=1e-3 rate noise
  [ "$1" -gt 16 ] || rates=".00025 .0005 .001" bound=3e-4
  for rate in $rates; do echo "learner=adam adam.rate=$rate train.warmup=20"; done
  for noise in 1e-4 4e-4; do echo "filter.process_noise=$noise filter.evidence_rate=.02 filter.trust_region=$bound train.warmup=5"; done
}

drift() {
  local constant="train.schedule=constant train.epochs=1 train.max_steps=1 model.dropout=0 model.dropout_embedding=0 sensitivity=adjoint"
  local text="correction.split=train stream.kind=topics stream.tasks=4 correction.curve=true"
  local toggled="shift.kind=vocab-permute shift.schedule=12000-20000" keys which n k=0
  for n in 64 16; do
    while read -r keys; do
      k=$((k + 1)) which=kalman
      case $keys in *learner=adam*) which=adam ;; esac
      rm -rf "$out/begin-$k"
      # shellcheck disable=SC2086 # keys are words
      "$kwm" train "${JOB:-$root/jobs/wikitext2.yaml}" --output "$out/begin-$k" $constant train.batch=$n $keys </dev/null >"$out/begin-$k.log" 2>&1
      echo "drift-$which-$n-$k $out/begin-$k $text correction.streams=$n $toggled baseline.kind=learner $low correction.bias=.1"
    done < <(learners $n)
  done >"$out/drift.queue"
  queue <"$out/drift.queue"
}

for part in "$@"; do "$part"; done
/usr/bin/python3 - "$out" <<'PYTHON'
import glob, os, sys
names = "perplexity over_static operations_per_token seconds_per_token time_over_static bytes entropy calibration_error nis window_norm restarts noise scale listed forgetting".split()
print("run", "method", *names, "keys", sep="\t")
for path in sorted(glob.glob(sys.argv[1] + "/*.txt")):
    lines = [line.rstrip("\n").split("\t") for line in open(path)]
    rows = {row[0]: row[1] for row in lines if len(row) == 2}
    if "keys" not in rows:
        continue
    methods = [row[0][: -len("_perplexity")] for row in lines if row[0].endswith("_perplexity") and "_domain" not in row[0]]
    for method in methods:
        print(os.path.basename(path)[:-4], method, *(rows.get(method + "_" + name, "") for name in names), rows["keys"], sep="\t")
PYTHON
