#!/bin/bash
# usage: build.sh [cmake option...]: installs what is missing and builds the program: build/release/kwm.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
"$root/scripts/setup"
cmake -S "$root" -B "$root/build/release" -DKWM_TESTS=OFF "$@"
cmake --build "$root/build/release" -j "$(nproc)"
