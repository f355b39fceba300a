#!/bin/bash
# usage: format.sh [--fix]: says which C files differ from .clang-format (Debian 12's clang-format 14), or changes them.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd -- "$root"

if ! command -v clang-format >/dev/null 2>&1; then
  echo "format: wanted clang-format, found none; run scripts/setup" >&2
  exit 1
fi
mapfile -t files < <(find include src tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort)

case "${1:-}" in
--fix) clang-format -i "${files[@]}" ;;
'')
  printf '%s\0' "${files[@]}" | xargs -0 -n 32 -P "$(nproc)" clang-format --dry-run --Werror || {
    echo "format: the files above differ from .clang-format; run scripts/format.sh --fix"
    exit 1
  }
  echo "format: ok (${#files[@]} files)"
  ;;
*)
  echo "format: wanted --fix or nothing, found $1" >&2
  exit 2
  ;;
esac
