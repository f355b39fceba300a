#!/bin/bash
# check_rooms.sh passes a clean tree and names each planted violation.
set -eu
check=$(CDPATH='' cd -- "$(dirname -- "$0")/../../scripts" && pwd -P)/check_rooms.sh
tree=$(mktemp -d)
trap 'rm -rf -- "$tree"' EXIT
failures=0

new_tree() {
  rm -rf -- "$tree"
  mkdir -p "$tree"/{src/base,src/io,src/cov,src/data,src/app,include/kwm,jobs,scripts,tests/unit,analysis,build-x,runs}
  cd -- "$tree"
  touch CMakeLists.txt README.md .hidden
  echo '#include <stdint.h>' >include/kwm/base.h
  printf '#include <mpi.h>\n#include "kwm/base.h"\n' >include/kwm/par.h
  printf '#include "kwm/par.h"\n' >include/kwm/cov.h
  printf '#include "kwm/base.h"\n' >include/kwm/data.h
  printf '#include "kwm/base.h"\n' >include/kwm/report.h
  printf '#include <hdf5.h>\n#include "h5.h"\nint f(void) {\n  return MPI_Barrier(0);\n}\n' >src/io/h5.c
  touch src/io/h5.h src/cov/scalapack.h
  printf '#include "kwm/report.h"\n#include <jansson.h>\n' >src/io/report.c
  printf '/* MPI_Allreduce(x) "in a comment",\n   MPI_Allreduce(y) */\nstatic const char *s = "MPI_Bcast(";\n' >src/cov/block.c
  printf '#include "kwm_version.h"\n#include "kwm/cov.h"\n' >src/app/app.c
  printf '#include "kwm/cov.h"\n#include <mpi.h>\n#include <hdf5.h>\n' >tests/unit/test_x.c
}

# function_of LINES: a function whose text has that many lines
function_of() {
  echo 'static int long_one(int a,'
  echo '                    int b) {'
  for _ in $(seq "$(($1 - 3))"); do echo '  a += b;'; done
  echo '}'
}

passes() {
  local out
  if ! out=$("$check" "$tree" 2>&1) || [[ $out != "rooms: ok ("*" files)" ]]; then
    echo "FAIL $1: wanted ok, found: $out"
    failures=$((failures + 1))
  fi
}

# fails NAME TEXT: exactly one violation, holding TEXT
fails() {
  local out code=0
  out=$("$check" "$tree" 2>&1) || code=$?
  if [ "$code" -ne 1 ] || [[ $out != *"$2"* ]] || [ "$(wc -l <<<"$out")" -ne 1 ]; then
    echo "FAIL $1: wanted status 1 and one line with '$2', found status $code: $out"
    failures=$((failures + 1))
  fi
}

new_tree
passes "clean tree"

# plant NAME TEXT FILE LINE: a clean tree with LINE added to FILE
plant() {
  new_tree
  printf '%s\n' "$4" >>"$3"
  fails "$1" "$2"
}
plant "upward include" "room base (rank 0) includes kwm/cov.h of room cov (rank 4)" src/base/log.c '#include "kwm/cov.h"'
plant "upward include of a header" "include/kwm/base.h:2: room base" include/kwm/base.h '#include "kwm/par.h"'
plant "sibling include" "room cov (rank 4) includes kwm/data.h" src/cov/block.c '#include "kwm/data.h"'
plant "unknown header" "includes kwm/other.h, which belongs to no room" src/cov/block.c '#include "kwm/other.h"'
plant "header of no room" "include/kwm/other.h:1: belongs to no room" include/kwm/other.h '#include <math.h>'
plant "another room's private header" "not a header of its own room" src/cov/block.c '#include "../io/h5.h"'
plant "a private header that is elsewhere" "not a header of its own room" src/cov/block.c '#include "h5.h"'
plant "version header" "includes kwm_version.h" src/io/report.c '#include "kwm_version.h"'
plant "hdf5" "src/io/report.c:3: includes hdf5.h" src/io/report.c '#include <hdf5.h>'
plant "cblas" "includes cblas.h" src/cov/block.c '#include <cblas.h>'
plant "lapacke" "includes lapacke.h" src/cov/block.c '#include <lapacke.h>'
plant "cyaml" "includes cyaml/cyaml.h" src/app/app.c '#include <cyaml/cyaml.h>'
plant "jansson" "includes jansson.h" src/app/app.c '#include <jansson.h>'
plant "zlib" "includes zlib.h" src/io/report.c '  #  include <zlib.h>'
plant "scalapack" "includes scalapack.h" src/cov/block.c '#include "scalapack.h"'
plant "mpi.h" "includes mpi.h" src/cov/block.c '#include <mpi.h>'
plant "MPI call" "src/cov/block.c:4: calls MPI" src/cov/block.c 'int x = /* here */ MPI_Barrier (0);'
plant "function of 61 lines" "function of 61 lines (from line 4)" src/cov/block.c "$(function_of 61)"
plant "reason before another function" "(from line 66)" src/cov/block.c \
  "$(printf '/* size: a table */\n%s\n%s' "$(function_of 61)" "$(function_of 61)")"
plant "reason that stands apart" "(from line 6)" src/cov/block.c "$(printf '/* size: a table */\n\n%s' "$(function_of 61)")"
plant "file of 401 lines" "src/cov/long.c:401: file of more than 400 lines" src/cov/long.c "$(seq 401 | sed 's,.*,;,')"
plant "header of 151 lines" "include/kwm/lin.h:151: file of more than 150 lines" include/kwm/lin.h "$(seq 151 | sed 's,.*,;,')"
plant "top level entry" "top level: Makefile is not one" Makefile all:

new_tree
rmdir analysis
fails "missing entry" "top level: analysis is missing"
new_tree
mkdir src/spare
echo 'int x;' >src/spare/x.c
fails "folder of no room" "src/spare/x.c:1: belongs to no room"

new_tree
{
  function_of 60
  printf '/* A table.\n   size: one case per kind */\n'
  function_of 61
} >>src/cov/block.c
seq 400 | sed 's,.*,;,' >src/cov/full.c
{ echo '/* size: a table of constants */'; seq 500 | sed 's,.*,;,'; } >src/cov/long.c
passes "limits and stated reasons"

if command -v git >/dev/null 2>&1; then
  new_tree
  git init -q
  echo build-x >.gitignore
  touch build-x/file runs/file analysis/x jobs/x scripts/x
  fails "entry that git would track" "top level: runs is not one"
  echo runs >>.gitignore
  passes "entries that git ignores"
fi

[ "$failures" -eq 0 ] || exit 1
