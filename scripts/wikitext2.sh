#!/bin/bash
# usage: wikitext2.sh FOLDER [first | noise | trust | long | pipe ...]: the runs behind analysis/wikitext2.tsv on this machine's first
# GPU (pipe: as many as there are, at most 4); run directories go to runs/wikitext2-*, a line a run to standard output.
#   first   three passes at the first setting, seeds 1 to 3: adam, adjoint, stage
#   noise   three passes: what process noise, evidence, bases, smoothing, stages change; rates of adam
#   trust   three passes: bounds on all tensors' step together, seeds 1 to 3
#   long    many passes with much dropped, both learners
#   pipe    60 steps over several GPUs
set -eu -o pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
if [ $# -lt 1 ]; then
  echo "usage: wikitext2.sh FOLDER [first | noise | trust | long | pipe ...]" >&2
  exit 2
fi
export KWM_DATA=$1
shift
[ $# -gt 0 ] || set -- first noise trust long
. "$root/scripts/env.sh"
kwm=${KWM:-$root/build/release/kwm}
runs=${RUNS:-runs}
base=(filter.process_noise=1e-4 filter.evidence_rate=.02 filter.stage_noise=1 cov.hidden.refresh=60 filter.trust_region=0 checkpoint.every=100000000)

# run NAME RANKS [key=value ...]
run() {
  local dir=$runs/wikitext2-$1 ranks=$2
  shift 2
  mpirun -q -n "$ranks" "$kwm" train "$root/jobs/wikitext2.yaml" --output "$dir" "${base[@]}" "$@" 2>/dev/null
  /usr/bin/python3 - "$dir" "$*" <<'PYTHON'
import json, sys
s = json.load(open(sys.argv[1] + "/summary.json"))
keys = "best_epoch best_valid_perplexity best_test_perplexity valid_perplexity test_perplexity test_perplexity_fused samples_per_second".split()
print(sys.argv[2], *("%s=%.6g" % (k, s[k] if s[k] is not None else float("nan")) for k in keys), sep="\t", flush=True)
PYTHON
}

first() {
  for seed in 1 2 3; do
    run "adam-$seed" 1 learner=adam sensitivity=adjoint seed=$seed
    run "adjoint-$seed" 1 sensitivity=adjoint seed=$seed
    run "stage-$seed" 1 seed=$seed
  done
}

noise() {
  local k=0 keys
  for keys in process_noise=5e-5 process_noise=2e-4 process_noise=4e-4 evidence_rate=.01 evidence_rate=.05 smoothing=.95 \
    pull=.1 riccati=recursive; do
    run "noise-$((k += 1))" 1 sensitivity=adjoint filter.$keys
  done
  for keys in hidden.refresh=20 hidden.exact=2 output.prior=25 output.structure=kron; do
    run "noise-$((k += 1))" 1 sensitivity=adjoint cov.$keys
  done
  for keys in filter.stage_noise=.5 filter.stage_noise=1.5 model.readouts=2 model.readouts=6; do
    run "noise-$((k += 1))" 1 $keys
  done
  run "noise-$((k += 1))" 1 sensitivity=adjoint filter.factor_every=1 precision=tf32
  run "noise-$((k += 1))" 1 learner=adam
  for keys in .0005 .002 .003 .004; do
    run "noise-$((k += 1))" 1 learner=adam sensitivity=adjoint adam.rate=$keys
  done
  for keys in 1 2 3; do
    run "best-stage-$keys" 1 filter.process_noise=4e-4 filter.evidence_rate=.01 filter.stage_noise=1.5 cov.hidden.refresh=20 seed=$keys
    run "best-adjoint-$keys" 1 sensitivity=adjoint filter.process_noise=4e-4 filter.evidence_rate=.01 cov.hidden.refresh=20 seed=$keys
    run "best-adam-$keys" 1 learner=adam sensitivity=adjoint adam.rate=.003 seed=$keys
  done
}

trust() {
  local best=(filter.process_noise=4e-4 filter.evidence_rate=.01 cov.hidden.refresh=20) bound seed
  for bound in 1e-4 3e-4 1e-3; do
    for seed in 1 2 3; do
      run "trust-adjoint-$bound-$seed" 1 sensitivity=adjoint "${best[@]}" filter.trust_region=$bound seed=$seed
      run "trust-stage-$bound-$seed" 1 "${best[@]}" filter.stage_noise=1.5 filter.trust_region=$bound seed=$seed
    done
  done
}

long() {
  local both=(report.evaluations=2 train.average=.005 sensitivity=adjoint) fresh=(filter.evidence_rate=.01 cov.hidden.refresh=20) k=0 drop
  # much LAYERS EMBEDDED READ-OUT PASSES [key=value ...]: what is dropped, and how often all is read
  much() {
    k=$((k + 1))
    drop=("model.dropout=$1" "model.dropout_embedding=$2" "model.dropout_readout=$3" "train.epochs=$4")
    run "long-$k" 1 "${both[@]}" "${drop[@]}" "${@:5}"
  }
  much .3 .4 .6 24
  much .4 .4 .4 24
  much .4 .4 .4 30 learner=adam
  much .3 .4 .6 24 learner=adam adam.decay=.1
  much .3 .3 .4 18 sensitivity=stage
  much .3 .4 .6 24 filter.pull=.1
  much .3 .4 .6 24 filter.pull=.3
  much .3 .4 .6 24 filter.pull=.1 model.context=256 train.batch=32
  much .3 .4 .6 24 filter.pull=.1 train.batch=32
  much .3 .4 .6 28 "${fresh[@]}"
  much .3 .45 .65 34
  much .35 .5 .6 34 filter.process_noise=2e-4 filter.pull=.1
  much .35 .5 .6 24 filter.process_noise=3e-4 filter.pull=.5 "${fresh[@]}"
  much .35 .5 .65 24 filter.process_noise=2e-4 filter.pull=.5 "${fresh[@]}"
  much .4 .5 .7 28 filter.process_noise=2e-4 filter.pull=1 "${fresh[@]}"
  much .3 .4 .6 20 sensitivity=stage filter.stage_noise=1.5 filter.process_noise=2e-4 filter.pull=.5 "${fresh[@]}"
}

# 60 steps of the job as it is: tokens/s of the last 20, then what shares of the time each stage's rank had nothing to do.
piped() {
  local dir=$runs/wikitext2-$1 ranks=$2
  shift 2
  mpirun -q -n "$ranks" "$kwm" train "$root/jobs/wikitext2.yaml" --output "$dir" checkpoint.every=100000000 train.max_steps=60 \
    report.every=20 "$@" 2>/dev/null
  /usr/bin/python3 - "$dir" "$ranks ranks $*" <<'PYTHON'
import json, sys
rows = [line.rstrip("\n").split("\t") for line in open(sys.argv[1] + "/metrics.tsv")]
s = json.load(open(sys.argv[1] + "/summary.json"))
idle = ["%.2f" % s[k] for k in sorted(s) if k.startswith("idle_fraction_stage")]
print(sys.argv[2], "tokens_per_s=%.0f" % float(rows[-1][rows[0].index("samples_per_s")]), "idle=" + ",".join(idle), sep="\t", flush=True)
PYTHON
}

pipe() {
  local chunks
  for chunks in 1 8; do piped "pipe-1-$chunks" 1 train.chunks=$chunks; done
  piped pipe-1-adjoint 1 sensitivity=adjoint
  for chunks in 1 2 4 8; do piped "pipe-3-$chunks" 3 layout.stages=3 train.chunks=$chunks; done
  piped pipe-3-copies 3 layout.stages=3 train.chunks=2 train.copy_every=20
  piped pipe-3-host 3 layout.stages=3 train.chunks=8 layout.messages=host
  for chunks in 4 8; do piped "pipe-3-adjoint-$chunks" 3 layout.stages=3 train.chunks=$chunks sensitivity=adjoint; done
  piped replicas-4 4 layout.replicas=4 train.chunks=4
}

for part in "$@"; do "$part"; done
