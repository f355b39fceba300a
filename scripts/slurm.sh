# shellcheck shell=bash
# What jobs/kwm.sbatch does: source it, then kwm_slurm CONFIG [key=value ...]. Runs CONFIG and goes on from its own checkpoints
# until it is done. Works without Slurm, too. From the environment:
#   KWM           the program (build/release/kwm)          KWM_DATA      folder of the data
#   RUN           run directory (runs/NAME-JOBID)          KWM_LAUNCHER  mpirun (default) or srun, with --mpi=pmix
#   KWM_RESTARTS  how often the job requeues itself (50)   KWM_TOP       the repository, if the job was submitted elsewhere

# One array task, one seed: of the parameters and of a stream's tasks.
kwm_slurm_seed() {
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || printf '%s\n' "seed=$SLURM_ARRAY_TASK_ID" "stream.seed=$SLURM_ARRAY_TASK_ID"
}

# The name of this run's folder: the same after a requeue, another one for every task of an array.
kwm_slurm_run() {
  local job=${SLURM_JOB_ID:-local}
  [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=$SLURM_ARRAY_JOB_ID
  local run=${RUN:-$2/runs/$1-$job}
  printf '%s\n' "$run${SLURM_ARRAY_TASK_ID:+-seed$SLURM_ARRAY_TASK_ID}"
}

# Whether the run in this folder broke off without a word: not by an error of its own, which it would have written down.
kwm_slurm_lost() {
  "$1" status "$2" 2>/dev/null | grep -q -e '^state.running' -e '^detail.no sign of life'
}

kwm_slurm() {
  local top=${KWM_TOP:-${SLURM_SUBMIT_DIR:-$PWD}} config=$1 pid='' code=255 kwm run name launch seed
  shift
  name=$(basename "$config" .yaml)
  kwm=${KWM:-$top/build/release/kwm}
  run=$(kwm_slurm_run "$name" "$top")
  mapfile -t seed < <(kwm_slurm_seed)
  # shellcheck source=scripts/env.sh
  . "$top/scripts/env.sh"
  if [ ! -x "$kwm" ]; then
    echo "slurm.sh: wanted the program at $kwm (scripts/build.sh, or KWM=PATH), found none" >&2
    exit 2
  fi
  mkdir -p "$(dirname "$run")"
  # A host that no longer answers is lost after a minute, not after eight.
  export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-30}"
  export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-10}"
  export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-3}"
  launch=(mpirun -q -n "${SLURM_NTASKS:-2}")
  [ "${KWM_LAUNCHER:-mpirun}" = mpirun ] || launch=(srun --mpi=pmix --kill-on-bad-exit=1)

  # --signal=B: reaches this shell before the time limit; the launcher passes it on, every rank stops after its step, a
  # checkpoint is written and kwm ends with 75. wait returns at each signal, so it is asked again.
  trap '[ -n "$pid" ] && kill -USR1 "$pid"' USR1
  "${launch[@]}" "$kwm" train "$config" --output "$run" --resume "${seed[@]}" "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    wait "$pid"
    code=$?
  done

  # 75: stopped on request. 76: a rank did not arrive. 137, 143, 205: a rank or a host was lost; mpirun says 1 of a host that
  # was lost while it started. All go on from the last good checkpoint; the requeue ends this script.
  if [ "$code" -eq 1 ] && kwm_slurm_lost "$kwm" "$run"; then code=205; fi
  case $code in
  75 | 76 | 137 | 143 | 205)
    if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${KWM_RESTARTS:-50}" ]; then
      scontrol requeue "$SLURM_JOB_ID" && sleep 60
    fi
    ;;
  esac
  exit "$code"
}
