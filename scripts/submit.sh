#!/bin/bash
# usage: submit.sh CONFIG [options] [key=value ...]: submits jobs/kwm.sbatch for CONFIG; prints Slurm's job number.
#   -n RANKS         ranks (the product of layout.stages, .owners, .replicas, from key=value or CONFIG)
#   -p PARTITION     -A ACCOUNT     -t TIME     -N NODES        as sbatch's; else its SBATCH_PARTITION, SBATCH_ACCOUNT, ...
#   --seeds LIST     a job array, one run a seed: 1-3, 1,5,7, 1-100%10
#   --gpus           a GPU for each rank, and backend=cuda
#   --launcher WORD  mpirun (default; in the allocation) or srun (srun --mpi=pmix)
#   --output DIR     run directory (runs/NAME-JOBID); with --seeds DIR-seedN
#   --data FOLDER    the data (default: KWM_DATA)
#   --warn SECONDS   how long before the time limit to write a checkpoint and requeue (90)
#   --restarts N     how often the job requeues itself (50)
#   --sbatch WORDS   further words for sbatch, may be repeated
#   --dry-run        prints the sbatch command instead
set -eu -o pipefail
top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

refuse() {
  echo "submit.sh: $*" >&2
  exit 2
}

# layout_key KEY DEFAULT: from the words, else from the file's block `layout:`, plain or in braces.
layout_key() {
  local word value=''
  for word in ${keys[@]+"${keys[@]}"}; do
    case $word in "layout.$1="*) value=${word#*=} ;; esac
  done
  [ -n "$value" ] || value=$(awk -v key="$1" '
    /^layout:/ { inside = 1 }
    /^[^ #]/ && !/^layout:/ { inside = 0 }
    inside && match($0, "(^| |[{,])" key ": *[0-9]+") {
      text = substr($0, RSTART, RLENGTH)
      sub(/.*: */, "", text)
      print text
      exit
    }' "$config")
  printf '%s\n' "${value:-$2}"
}

config=
ranks=
dry=
options=()
keys=()
while [ $# -gt 0 ]; do
  case $1 in
  -n | -p | -A | -t | -N | --seeds | --launcher | --output | --data | --warn | --restarts | --sbatch)
    [ $# -ge 2 ] || refuse "$1: wanted a value, found none"
    ;;
  esac
  case $1 in
  -n) ranks=$2 && shift ;;
  -p | -A | -t | -N) options+=("$1" "$2") && shift ;;
  --seeds) options+=("--array=$2") && shift ;;
  --gpus) options+=(--gpus-per-task=1) && keys+=(backend=cuda) ;;
  --launcher) export KWM_LAUNCHER=$2 && shift ;;
  --output) RUN=$(realpath -m -- "$2") && export RUN && shift ;;
  --data) KWM_DATA=$(realpath -- "$2") && export KWM_DATA && shift ;;
  --warn) options+=("--signal=B:USR1@$2") && shift ;;
  --restarts) export KWM_RESTARTS=$2 && shift ;;
  --sbatch) options+=("$2") && shift ;;
  --dry-run) dry="echo" ;;
  -*) refuse "wanted an option of the list at the head of this file, found $1" ;;
  *=*) keys+=("$1") ;;
  *)
    [ -z "$config" ] || refuse "wanted one CONFIG, found $config and $1"
    config=$1
    ;;
  esac
  shift
done
[ -f "$config" ] || refuse "wanted CONFIG, a file, found ${config:-nothing}"
case ${KWM_LAUNCHER:-mpirun} in mpirun | srun) ;; *) refuse "--launcher: wanted mpirun or srun, found $KWM_LAUNCHER" ;; esac
config=$(realpath -- "$config")
name=$(basename "$config" .yaml)
stages=$(layout_key stages 2)
owners=$(layout_key owners 1)
replicas=$(layout_key replicas 1)
: "${ranks:=$((stages * owners * replicas))}"
[ -z "${RUN:-}" ] || mkdir -p "$(dirname "$RUN")"
export KWM_TOP=$top

$dry sbatch --parsable --export=ALL --job-name="kwm-$name" --ntasks="$ranks" ${options[@]+"${options[@]}"} \
  "$top/jobs/kwm.sbatch" "$config" ${keys[@]+"${keys[@]}"}
