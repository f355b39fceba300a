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
  bad=0
  for file in "${files[@]}"; do
    if ! clang-format "$file" | cmp -s - "$file"; then
      echo "format: $file differs from .clang-format; run scripts/format.sh --fix"
      bad=1
    fi
  done
  [ "$bad" -eq 0 ] || exit 1
  echo "format: ok (${#files[@]} files)"
  ;;
*)
  echo "format: wanted --fix or nothing, found $1" >&2
  exit 2
  ;;
esac
