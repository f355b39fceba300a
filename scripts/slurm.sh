# shellcheck shell=bash
# What the sbatch scripts in jobs/ share: source it, then kwm_slurm NAME [key=value ...]. Runs jobs/NAME.yaml under mpirun and
# goes on from its own checkpoints until it is done. Works without Slurm, too.
# KWM: the program (default build/release/kwm). RUN: the run directory (default runs/NAME-JOBID).
kwm_slurm() {
  local name=$1 top=${SLURM_SUBMIT_DIR:-$PWD} pid='' code=255 kwm run
  shift
  kwm=${KWM:-$top/build/release/kwm}
  run=${RUN:-$top/runs/$name-${SLURM_JOB_ID:-local}}
  # shellcheck source=scripts/env.sh
  . "$top/scripts/env.sh"
  mkdir -p "$(dirname "$run")"

  # --signal=B: reaches this shell before the time limit; mpirun passes it on, every rank stops after its step, a
  # checkpoint is written and kwm ends with 75.
  trap '[ -n "$pid" ] && kill -USR1 "$pid"' USR1
  mpirun -q -n "${SLURM_NTASKS:-2}" "$kwm" train "$top/jobs/$name.yaml" --output "$run" --resume "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    wait "$pid"
    code=$?
  done

  # 75: stopped on request; 137, 205: a rank or a host was lost. All three go on from the last good checkpoint.
  case $code in
  75 | 137 | 205)
    if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
      scontrol requeue "$SLURM_JOB_ID"
      sleep 60
    fi
    ;;
  esac
  exit "$code"
}
