#!/bin/bash
# usage: world.sh FOLDER [PART ...]: the numbers on world models, over seeds 1 to 5, into FOLDER/world.tsv; runs go to FOLDER
# and are removed once they are judged. Parts (all): systems slow hidden jump learned large recovered. About 40 minutes on 2 cores.
#   systems    learned models of five systems against filters with the true model, autoregression, DMD
#   slow       the exact Koopman lift: eigenvalues and forecasts, without noise and with 1 %
#   hidden     the lifted filter where the extended one has no chance
#   jump       steps until a parameter that jumped is found again; NIS before, at and after it
#   learned    Koopman models with a learned lift, beside dictionaries corrected by outputs and by their lift
#   large      cross terms in low rank, and rings cut into segments, beside one filter of all (seeds 1 to 3); 200 and 400 states (seed 1)
#   recovered  parameters and noises of a linear system within their own intervals, seeds 1 to 400
# KWM: the program (default build/release/kwm, built if it is not there).
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
[ $# -ge 1 ] || { echo "world: wanted FOLDER" >&2; exit 2; }
folder=$1
shift
all=(systems slow hidden jump learned large recovered)
parts=("${@:-${all[@]}}")
for part in "${parts[@]}"; do
  [[ " ${all[*]} " == *" $part "* ]] || { echo "world: wanted of the parts ${all[*]}, found $part" >&2; exit 2; }
done
chosen() { [[ " ${parts[*]} " == *" $1 "* ]]; }
kwm=${KWM:-$root/build/release/kwm}
[ -x "$kwm" ] || "$root/scripts/build.sh"
# shellcheck source=scripts/env.sh
. "$root/scripts/env.sh"
mkdir -p "$folder"
table=$folder/world.tsv
raw=$folder/raw.tsv
: >"$raw"
seeds="1 2 3 4 5"

commit=unknown
if [ -e "$root/.git" ]; then commit=$(GIT_OPTIONAL_LOCKS=0 git -C "$root" describe --always --dirty) || commit=unknown; fi
{
  echo "# scripts/world.sh, commit $commit, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
  echo "# errors in units of each output's spread; mean and standard deviation over runs"
  printf 'part\tcase\tmethod\tnumber\tmean\tsd\truns\n'
} >"$table"

# run JOB CASE SEED [key=value ...]: trains, evaluates; lines `part case method number value` for every number.
run() {
  local job=$1 part=$2 name=$3 seed=$4
  shift 4
  rm -rf "$folder/run"
  "$kwm" train "$root/jobs/$job.yaml" --output "$folder/run" seed="$seed" "$@" 2>"$folder/log" || { cat "$folder/log" >&2; exit 1; }
  "$kwm" eval "$folder/run" >"$folder/eval"
  awk -F'\t' -v part="$part" -v name="$name" 'BEGIN { OFS = "\t" }
    $1 == "method" { for (c = 2; c <= NF; c++) head[c] = $c; next }
    NF == 8 { for (c = 2; c <= NF; c++) if ($c !~ /nan/) print part, name, $1, head[c], $c
              filtered[$1] = $2; ten[$1] = $4; mine = mine == "" ? $1 : mine }
    END { if (filtered["ekf"] > 0) print part, name, mine, "filtered_over_ekf", filtered[mine] / filtered["ekf"]
          if (ten["ar"] > 0) print part, name, mine, "rmse_10_over_best_of_ar_dmd", ten[mine] / (ten["ar"] < ten["dmd"] ? ten["ar"] : ten["dmd"]) }
  ' "$folder/eval" >>"$raw"
  # what the first line says of the speed
  sed -n 's/.*"steps_per_second": \([0-9.e+]*\).*/\1/p' "$folder/run/summary.json" |
    awk -v OFS='\t' -v part="$part" -v name="$name" '{ print part, name, "learned", "steps_per_second", $1 }' >>"$raw"
}

# The largest distance of the eigenvalues 0.95, 0.6, 0.9025 from the nearest that was found.
eigenvalues() {
  awk -F'\t' -v OFS='\t' -v part="$1" -v name="$2" 'NR > 1 { re[NR] = $2; im[NR] = $3 }
    END { split("0.95 0.6 0.9025", want, " ")
      for (w in want) { best = 1e9; for (i in re) { d = sqrt((re[i] - want[w]) ^ 2 + im[i] ^ 2); if (d < best) best = d }
        if (best > worst) worst = best }
      print part, name, "koopman", "eigenvalue_error", worst }' "$folder/run/spectrum.tsv" >>"$raw"
}

# Rows of 50 steps: NIS in the last row before the jump at step 3000, its largest after it, and steps until its row lies within
# its band and the parameter that jumped within two of its deviations of where it ends (a mean over the last 1000 steps).
jumped() {
  awk -F'\t' -v OFS='\t' 'NR == FNR { for (c = 1; FNR == 1 && c <= NF; c++) column[$c] = c
      if (FNR > 1) { nis[$1] = $column["nis"]; high[$1] = $column["nis_high"]; last = $1 }; next }
    FNR == 1 { for (c = 1; c <= NF; c++) at[$c] = c; next }
    { value[$1] = $at["dx2_x1^2_x2"]; sd[$1] = $at["sd_dx2_x1^2_x2"] }
    END { for (t = last - 950; t <= last; t += 50) end += value[t] / 20
      for (t = 3050; t <= 3500; t += 50) { if (nis[t] > top) top = nis[t]
        if (!back && nis[t] <= high[t]) back = t - 3000
        d = value[t] - end; if (d < 0) d = -d
        if (!found && d <= 2 * sd[t]) found = t - 3000 }
      print "jump", "vanderpol", "learned", "nis_before", nis[3000]
      print "jump", "vanderpol", "learned", "nis_largest_after", top
      print "jump", "vanderpol", "learned", "nis_band_high", high[3050]
      print "jump", "vanderpol", "learned", "steps_until_nis_is_back", (back ? back : 1e9)
      print "jump", "vanderpol", "learned", "steps_until_parameter_is_found", (found ? found : 1e9)
      print "jump", "vanderpol", "learned", "parameter_after_over_before", end / value[3000] }
  ' "$folder/run/metrics.tsv" "$folder/run/parameters.tsv" >>"$raw"
}

mlp=(world.transition=mlp world.hidden=32 world.forgetting=0.9998 system.steps=40000)
for seed in $seeds; do
  if chosen systems; then
    for system in duffing vanderpol pendulum lorenz lorenz96; do run "$system" systems "$system" "$seed"; done
    for system in duffing vanderpol pendulum; do
      run "$system" systems "$system-mlp" "$seed" "${mlp[@]}"
      run "$system" systems "$system-gaps" "$seed" system.missing=0.3
    done
  fi
  if chosen slow; then
    run slow slow clean "$seed" system.observation_noise=0 world.noise=given
    eigenvalues slow clean
    run slow slow noise-1% "$seed"
    eigenvalues slow noise-1%
  fi
  if chosen hidden; then run hidden hidden x2-only "$seed"; fi
  if chosen jump; then
    run jump jump vanderpol "$seed"
    jumped
  fi
  if chosen learned; then
    for system in duffing vanderpol pendulum; do
      run koopman-learned learned "$system" "$seed" system.kind="$system"
      run koopman-learned learned "$system-stable" "$seed" system.kind="$system" world.stable=true
      dictionary=(system.kind="$system" world.lift=dictionary world.degree=5 world.delays=0)
      run koopman-learned learned "$system-dictionary" "$seed" "${dictionary[@]}" world.correction=outputs
      run koopman-learned learned "$system-dictionary-lift" "$seed" "${dictionary[@]}"
    done
    run slow learned slow "$seed" world.lift=network world.correction=lift world.states=3 world.decoder=0 world.ahead=4 world.observation_noise=0.02
    eigenvalues learned slow
    run slow learned slow-refit "$seed" world.lift=network world.correction=lift world.states=3 world.decoder=0 world.ahead=4 world.observation_noise=0.02 world.refit=true
    eigenvalues learned slow-refit
  fi
  if chosen large && [ "$seed" -le 3 ]; then
    run lorenz96 large 8-dense "$seed"
    run lorenz96 large 8-block "$seed" world.cov=block
    for rank in 2 4 6 8; do run lorenz96 large "8-rank-$rank" "$seed" world.cov=lowrank world.rank="$rank"; done
    run lorenz96-blocks large 40-block "$seed" world.horizon=10
    for rank in 10 20 40; do run lorenz96-blocks large "40-rank-$rank" "$seed" world.horizon=10 world.cov=lowrank world.rank="$rank"; done
    for reach in 0 1 3; do run lorenz96-blocks large "40-reach-$reach" "$seed" world.horizon=10 world.segments=8 world.reach="$reach"; done
    if [ "$seed" = 1 ]; then
      run lorenz96-split large 200 "$seed"
      run lorenz96-split large 400 "$seed" system.size=400 world.segments=40
    fi
  fi
done

# Means and deviations (n - 1), in the order of first appearance.
awk -F'\t' -v OFS='\t' '
  { key = $1 OFS $2 OFS $3 OFS $4; if (!(key in n)) order[++keys] = key
    n[key]++; sum[key] += $5; squares[key] += $5 * $5 }
  END { for (k = 1; k <= keys; k++) { key = order[k]; mean = sum[key] / n[key]
      spread = n[key] > 1 ? (squares[key] - n[key] * mean * mean) / (n[key] - 1) : 0
      printf "%s\t%.4g\t%.2g\t%d\n", key, mean, (spread > 0 ? sqrt(spread) : 0), n[key] } }' "$raw" >>"$table"

if chosen recovered; then
  runs=()
  for seed in $(seq 400); do
    rm -rf "$folder/linear-$seed"
    "$kwm" train "$root/jobs/oscillator.yaml" --output "$folder/linear-$seed" seed="$seed" report.every=1000 2>"$folder/log" ||
      { cat "$folder/log" >&2; exit 1; }
    runs+=("$folder/linear-$seed")
  done
  "$root/analysis/world" --recovered "${runs[@]}" | awk -F'\t' -v OFS='\t' 'NR == 1 { for (c = 2; c <= NF; c++) head[c] = $c; next }
    { for (c = 3; c <= NF; c++) printf "recovered\toscillator\t%s\t%s\t%s\t0\t%d\n", $1, head[c], $c, $2 }' >>"$table"
  rm -rf "${runs[@]}"
fi
rm -rf "$folder/run" "$folder/log" "$folder/eval"
echo "$table"
