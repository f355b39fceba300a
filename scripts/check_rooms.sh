#!/bin/sh
# usage: check_rooms.sh [ROOT]: checks the architecture of the source tree, one line per violation; exit status 1 if any.
#   rooms      a file includes headers of lower rooms and of its own only; rooms of one rank never meet
#   libraries  an outside library is included in one place; MPI is called in few
#   top level  exactly the agreed entries and dotfiles
#   sizes      source file <= 400 lines, header <= 150, function <= 60; a comment line that begins with "size:" and gives
#              the reason exempts the file (within its first 10 lines) or the function (in the comment just before it)
set -eu
root=${1:-$(dirname -- "$0")/..}
cd -- "$root"
root=$(pwd -P)

# In a repository: what git tracks or would track. Elsewhere: what lies there, less what builds and runs leave.
if [ "$(git rev-parse --show-toplevel 2>/dev/null || true)" = "$root" ]; then
  top=$(git ls-files -co --exclude-standard | sed 's,/.*,,' | LC_ALL=C sort -u)
else
  top=$(find . -mindepth 1 -maxdepth 1 ! -name 'build*' ! -name runs | sed 's,^\./,,' | LC_ALL=C sort)
fi

check_top() {
  for entry in $top; do
    case $entry in
    CMakeLists.txt | README.md | src | include | jobs | scripts | tests | analysis | .*) ;;
    *) echo "top level: $entry is not one of the agreed entries" ;;
    esac
  done
  for entry in CMakeLists.txt README.md src include jobs scripts tests analysis; do
    [ -e "$entry" ] || echo "top level: $entry is missing"
  done
}

files=$(find src include tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort)

check_files() {
  # shellcheck disable=SC2086
  awk '
    function room(name, rank, headers,    i, n, part) {
      ranks[name] = rank
      n = split(headers, part, " ")
      for (i = 1; i <= n; i++) home[part[i]] = name
    }

    # library(pattern of the header, pattern of the files that may include it)
    function library(header, place) { libraries++; lib_header[libraries] = header; lib_place[libraries] = place }

    BEGIN {
      room("base", 0, "base.h fault.h log.h rng.h")
      room("backend", 1, "backend.h device.h device_facts.h device_ops.h device_rooms.h inform.h lane.h read.h tensor.h treesum.h")
      room("par", 2, "par.h link.h rooms.h")
      room("io", 3, "ckpt.h report.h watch.h array.h")
      room("lin", 3, "lin.h space.h segment.h monomials.h health.h consistency.h change.h tasks.h")
      room("data", 4, "data.h stream.h series.h systems.h tokens.h shift.h")
      room("layer", 4, "layer.h sublayer.h")
      room("cov", 4, "cov.h cov_ops.h full.h riccati.h spectrum.h")
      room("model", 5, "model.h transformer.h statespace.h lift.h encoder.h")
      room("filter", 5, "filter.h tracker.h ring.h regression.h correct.h")
      room("sens", 6, "sens.h")
      room("theory", 6, "theory.h")
      room("pipe", 7, "pipe.h language.h tail.h")
      room("learn", 8, "learn.h language_learn.h")
      room("app", 9, "config.h app.h")
      room("main", 10, "")

      library("hdf5.*", "src/io/h5(_array)?[.]c")
      library("(cblas|lapacke).*", "src/backend/cpu[.]c")
      library("(cyaml/.*|yaml[.]h)", "src/app/config[^/]*[.]c")
      library("jansson.*", "src/io/report[.]c")
      library("zlib[.]h", "src/data/.*")
      library("lzma[.]h", "src/data/xz[.]c")
      library("Random123/.*", "src/base/rng[.]c|src/backend/dropout[.]h")
      library("mpi[.]h", "src/par/.*|src/io/(h5|ckpt[a-z_]*)[.][ch]|src/cov/scalapack[.]h|src/main[.]c|include/kwm/(par|ckpt|full)[.]h")
      library("scalapack[.]h", "src/cov/full[^/]*[.]c")
      library("(cuda|cublas|cusolver|nccl).*", "src/backend/cuda[^/]*")
      library("cmocka[.]h", "tests/.*")
      mpi_callers = "^(src/par/.*|src/io/(h5|ckpt[a-z_]*)[.]c|src/cov/full[^/]*[.]c|src/main[.]c)$"
    }

    function say(text) { print path ":" FNR ": " text }

    FNR == 1 { open_file() }

    function open_file(    part, n) {
      path = FILENAME
      test = path ~ /^tests\//
      header = path ~ /[.]h$/
      limit = header && path ~ /^include\// ? 150 : 400
      too_long = exempt = reason = comment = 0
      n = split(path, part, "/")
      file = part[n]
      mine = ""
      if (path ~ /^include\//) mine = home[file]
      else if (path ~ /^src\/[^\/]*[.]c$/) mine = file == "main.c" ? "main" : ""
      else if (path ~ /^src\//) mine = part[2]
      body = 0
      first = 0
      if (!test && !(mine in ranks)) say("belongs to no room of the table")
      folder = path
      sub(/[^\/]*$/, "", folder)
    }

    { raw = $0; code = strip($0) }

    # The line without comments and string contents.
    function strip(line,    out, at) {
      gsub(/\\./, "", line)
      if (line !~ /^[ \t]*#[ \t]*include/) gsub(/"[^"]*"/, "\"\"", line)
      out = ""
      while (line != "") {
        if (comment) {
          at = index(line, "*/")
          if (!at) return out
          comment = 0
          line = substr(line, at + 2)
        } else {
          at = index(line, "/*")
          if (!at) { out = out line; break }
          out = out substr(line, 1, at - 1) " "
          comment = 1
          line = substr(line, at + 2)
        }
      }
      sub(/\/\/.*/, "", out)
      return out
    }

    !test && code ~ /^[ \t]*#[ \t]*include/ { check_include() }

    function check_include(    name, i, rank) {
      name = code
      sub(/^[ \t]*#[ \t]*include[ \t]*["<]/, "", name)
      sub(/[">].*/, "", name)
      for (i = 1; i <= libraries; i++)
        if (name ~ "^(" lib_header[i] ")$" && path !~ "^(" lib_place[i] ")$")
          say("includes " name ", which belongs in " lib_place[i] " only")
      if (!(mine in ranks)) return
      if (name ~ /^kwm\//) {
        sub(/^kwm\//, "", name)
        if (!(name in home)) { say("includes kwm/" name ", which belongs to no room of the table"); return }
        rank = ranks[home[name]]
        if (home[name] != mine && rank >= ranks[mine] && !((mine " " name) in exception))
          say("room " mine " (rank " ranks[mine] ") includes kwm/" name " of room " home[name] " (rank " rank ")")
      } else if (code ~ /include[ \t]*"/) {
        if (name == "kwm_version.h") {
          if (mine != "app") say("includes kwm_version.h, which belongs in src/app only")
        } else if (name ~ /\// || (getline ignored < (folder name)) < 0)
          say("includes \"" name "\", which is not a header of its own room")
        else close(folder name)
      }
    }

    !test && path !~ mpi_callers && code ~ /(^|[^A-Za-z0-9_])P?MPI_[A-Z][a-z][A-Za-z0-9_]*[ \t]*\(/ {
      say("calls MPI outside par, io/h5.c, io/ckpt*.c, cov/full*.c and main.c")
    }

    # Sizes. A function: from the last line that begins in column 0 with a word, over one that ends in ") {", to "}" in
    # column 0.
    !test && raw ~ /^[ \t]*(\/\*|\*|\/\/)?[ \t]*size: ./ {
      if (FNR <= 10) exempt = 1
      reason = 1
    }
    !test && raw ~ /^[ \t]*$/ && !body { reason = 0 }
    !test && !body && code ~ /^[A-Za-z_]/ { first = FNR; excused = reason }
    !test && !body && first && code ~ /\)[ \t]*\{[ \t]*$/ && code !~ /^[ \t]*#/ { body = 1 }
    !test && code ~ /^\}/ {
      if (body && !excused && FNR - first + 1 > 60) say("function of " FNR - first + 1 " lines (from line " first "), at most 60")
      body = first = reason = 0
    }
    !test && FNR == limit + 1 && !exempt { say("file of more than " limit " lines") }
  ' $files </dev/null
}

violations=$(check_top; check_files)
if [ -n "$violations" ]; then
  printf '%s\n' "$violations"
  exit 1
fi
# shellcheck disable=SC2086
set -- $files
echo "rooms: ok ($# files)"
