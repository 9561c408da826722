#!/bin/sh
# Download packages with all dependencies, and print their files and their index entries. Includes
# everything that a freshly installed host has, because a package may need newer versions of that.
# usage: closure.sh SCRATCH NAME...
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
here=$1
shift

# With an empty status file, no package counts as installed, so that dependencies are complete for a
# minimal host. Caches stay in memory: the builder's own must not see the empty status.
apt() {
  program=$1
  shift
  "$program" -q -o Dir::State="$here/state" -o Dir::State::lists="$here/lists" \
    -o Dir::State::status="$here/status" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o Dir::Etc::sourceparts="$here/sources.list.d" -o APT::Install-Recommends=false "$@"
}

base() {
  apt apt-cache dumpavail |
    awk '/^Package:/ { name = $2 } /^Priority: (required|important)/ { print name }' | sort -u
}

# shellcheck disable=SC2046,SC2086 # several words each
install() {
  options=$1
  shift
  apt apt-get -qq -y $options install "$@" && apt apt-get -qq -y $options install $(base)
}

apt apt-get update >&2 || exit 1
mkdir -p "$here/none/partial"
install "-o Dir::Cache::archives=$here/none --print-uris" "$@" >"$here/closure" || exit 1
install --download-only "$@" >&2 || exit 1
cat "$here/closure"
echo
# shellcheck disable=SC2046
apt apt-cache --no-all-versions show $(sed -n "s/^'[^']*' \([^_ ]*\)_\([^_ ]*\)_.*/\1=\2/p" \
  "$here/closure" | sed 's/%3a/:/g' | sort -u)
