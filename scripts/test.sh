#!/bin/bash
# usage: test.sh [--sanitize] [ctest argument...]: builds with all warnings as errors, runs the tests, ends with their count.
# --sanitize: the unit and mpi tests under the address and undefined-behaviour sanitizers instead.
set -eu -o pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
jobs=$(nproc)

build=$root/build/test
options=(-DKWM_WERROR=ON)
select=()
if [ "${1:-}" = --sanitize ]; then
  shift
  build=$root/build/sanitize
  # Instrumented code draws false warnings from the compiler's flow analysis: they stay warnings here.
  options=(-DKWM_WERROR=OFF -DKWM_SANITIZE=ON)
  select=(-L '^(unit|mpi)$')
fi

"$root/scripts/setup"
cmake -S "$root" -B "$build" "${options[@]}"
cmake --build "$build" -j "$jobs"

log=$build/ctest.log
code=0
# Twice as many at a time as there are cores: the end-to-end tests wait for mpirun, Slurm and clocks half of their time.
LC_ALL=C ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$((2 * jobs))" "${select[@]}" "$@" | tee "$log" || code=$?

# CTest counts a skipped test as passed: "100% tests passed, 0 tests failed out of 38".
read -r failed total <<<"$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests\{0,1\} failed out of \([0-9]*\)$/\1 \2/p' "$log")"
if [ -z "${total:-}" ]; then
  echo "test.sh: wanted tests to run, none did" >&2
  exit 1
fi
skipped=$(grep -c '\*\*\*Skipped' "$log" || true)
echo
echo "$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
if [ "$failed" -ne 0 ] || [ "$total" -eq "$skipped" ]; then exit 1; fi
exit "$code"
