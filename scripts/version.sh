#!/bin/sh
# usage: version.sh VERSION HEADER: writes the header with the version and the git commit, only if it changed.
set -eu
version=$1
header=$2
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

# A source tree without a repository of its own must not take the commit of a repository around it.
git_id=unknown
if [ -e "$root/.git" ]; then
  git_id=$(GIT_OPTIONAL_LOCKS=0 git -C "$root" describe --always --dirty 2>/dev/null) || git_id=unknown
fi

mkdir -p "$(dirname -- "$header")"
cat >"$header.new" <<END
#define KWM_VERSION "$version"
#define KWM_GIT "$git_id"
END
if cmp -s "$header.new" "$header"; then rm "$header.new"; else mv "$header.new" "$header"; fi
