#!/bin/bash
# usage: quickstart.sh [key=value...]: from a bare Debian 12 to a trained model: installs what is missing, builds, trains
# on two ranks with jobs/quickstart.yaml, prints the test accuracy. KWM_DATA: a folder with the four IDX files to use
# instead of Debian's Fashion-MNIST.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd -- "$root"

scripts/build.sh

if [ -z "${KWM_DATA:-}" ]; then
  images=$(dpkg -L dataset-fashion-mnist | grep '/train-images-idx3-ubyte' | head -n 1)
  if [ -z "$images" ]; then
    echo "quickstart: wanted train-images-idx3-ubyte in package dataset-fashion-mnist, found none" >&2
    exit 1
  fi
  KWM_DATA=$(dirname -- "$images")
fi
export KWM_DATA

run=runs/quickstart
number=2
while [ -e "$run" ]; do
  run=runs/quickstart-$number
  number=$((number + 1))
done
mkdir -p runs
# An output that the caller names wins, as it does in kwm.
for argument in "$@"; do
  case "$argument" in output=*) run=${argument#output=} ;; esac
done

# shellcheck source=scripts/env.sh
. scripts/env.sh
ranks=2
code=0
mpirun -q -n "$ranks" build/release/kwm train jobs/quickstart.yaml "output=$run" "$@" || code=$?

echo
if [ "$code" -eq 0 ]; then
  /usr/bin/python3 -c '
import json, sys
summary = json.load(open(sys.argv[1]))
print("test accuracy: %.2f %%" % (100 * summary["test_accuracy"]))' "$run/summary.json"
else
  echo "quickstart: kwm ended with code $code" >&2
fi
cat <<END
run folder:    $run
resume it:     . scripts/env.sh && mpirun -n $ranks build/release/kwm train $run/config.yaml --resume --output $run
look inside:   build/release/kwm inspect $run
END
exit "$code"
