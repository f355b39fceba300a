#!/bin/bash
# usage: fuzz.sh [SECONDS] [TARGET...]: runs the fuzz targets (tests/fuzz: config, idx, tokens, ckpt) SECONDS each (20), one a core, under
# the address and undefined-behaviour sanitizers; what they find lies in build/fuzz/found, what they learnt in build/fuzz/corpus.
# Exit status: 0 nothing found, 1 something found, 77 no clang with libFuzzer here (scripts/setup --fuzz installs it).
set -eu -o pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
seconds=${1:-20}
[ $# -eq 0 ] || shift
targets=("$@")
[ $# -gt 0 ] || targets=(config idx tokens ckpt)
build=$root/build/fuzz

trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n); int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return d && n > 9 ? 0 : 0; }' >"$trial/x.c"
if ! clang -fsanitize=fuzzer,address,undefined "$trial/x.c" -o "$trial/x" 2>/dev/null; then
  echo "fuzz.sh: skipped: wanted clang with libFuzzer (scripts/setup --fuzz), found none"
  exit 77
fi

cmake -S "$root" -B "$build" -DCMAKE_C_COMPILER=clang -DKWM_FUZZ=ON -DKWM_CUDA=OFF -DKWM_NATIVE=OFF >/dev/null
cmake --build "$build" -j "$(nproc)" --target fuzz >"$build/build.log" 2>&1 || { tail -n 30 "$build/build.log" && exit 1; }

# A start: what is good, plain and packed; the byte in front chooses the file's kind.
corpus=$build/corpus
mkdir -p "$corpus"/{config,idx,tokens,ckpt} "$build/found"
cp "$root"/jobs/*.yaml "$corpus/config/"
{ printf '\0\0\10\3\0\0\0\3\0\0\0\2\0\0\0\2' && printf 'abcdefghijkl'; } >"$trial/idx"
printf 'the cat <unk>\nsat\n\non the mat\n' >"$trial/txt"
{ printf '\0' && cat "$trial/idx"; } >"$corpus/idx/plain"
{ printf '\1' && gzip -nc "$trial/idx"; } >"$corpus/idx/gzip"
{ printf '\0' && cat "$trial/txt"; } >"$corpus/tokens/plain"
{ printf '\1' && gzip -nc "$trial/txt"; } >"$corpus/tokens/gzip"
{ printf '\2' && xz -c "$trial/txt"; } >"$corpus/tokens/xz"
printf 'kwm-checkpoint\nbytes 600\nsum 0000000000000000\n' >"$corpus/ckpt/seal"
printf '\0\20\7\200\0\30\7\200' >"$corpus/ckpt/highest-bits"

# shellcheck source=scripts/env.sh
. "$root/scripts/env.sh"
# Open MPI would take the signal by which libFuzzer hears of a find. It and HDF5 keep memory to their end. A file may promise any size: what is then asked for is refused, no crash.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 KWM_FUZZ_TMP=$trial OMPI_MCA_opal_signal=
export build seconds corpus
fuzz() {
  local target=$1 log=$build/$1.log
  if "$build/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -malloc_limit_mb=4096 -max_len=8192 \
    -artifact_prefix="$build/found/$target-" "$corpus/$target" >"$log" 2>&1; then
    echo "fuzz.sh: $target: $(grep -E '^Done ' "$log" || tail -n 1 "$log")"
  else
    { echo "fuzz.sh: $target: found:" && tail -n 40 "$log"; }
    return 1
  fi
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I '{}' bash -c 'fuzz {}' || exit 1
