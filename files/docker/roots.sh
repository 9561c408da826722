#!/bin/sh
# Directories of Docker and containerd on the host, for llmhost/facts/docker.py. Needs functions.sh.
# usage: roots.sh DOCKER_ROOT CONTAINERD_ROOT, the declared ones; the second is empty if any will do
# Prints containerd's configuration as base64 and its directory, if one is declared; then `swarm` if
# the host is in one, `moves NAME DIRECTORY` for each directory with data that is not the declared
# one, and `busy` if containers run.
containerd=
if [ -n "$2" ]; then
  base64 -w0 /etc/containerd/config.toml 2>/dev/null
  containerd=$(containerd_root)
fi
printf '\n%s\n' "$containerd"

other() { [ "$1" != "$2" ] && [ "$(readlink -m "$1")" != "$(readlink -m "$2")" ]; }
anything() { find "$@" -print -quit 2>/dev/null | grep -q .; }

docker=$(docker_root)
docker=${docker%%|*}
[ -n "$docker" ] || docker=$(sed -n 's/.*"data-root": *"\([^"]*\)".*/\1/p' /etc/docker/daemon.json 2>/dev/null)
docker=${docker:-/var/lib/docker}
# A node of a swarm has this file until it leaves the swarm.
[ -e "$docker/swarm/docker-state.json" ] && echo swarm
# With userns-remap, Docker appends a user and a group to the directory that is declared.
! other "$docker" "$1" || docker=$(printf '%s\n' "$docker" | sed -E 's|/[0-9]+\.[0-9]+$||')
if other "$docker" "$1" && anything "$docker"/containers "$docker"/volumes "$docker"/image/*/imagedb/content/* \
  -mindepth 1 ! -name backingFsBlockDev ! -name metadata.db; then
  echo "moves docker $docker"
fi

[ -n "$2" ] || exit 0
if [ -n "$containerd" ] && other "$containerd" "$2" && anything \
  "$containerd"/io.containerd.content.v1.content/blobs "$containerd"/io.containerd.snapshotter.v1.*/snapshots \
  -mindepth 1 ! -name sha256; then
  echo "moves containerd $containerd"
fi
anything /run/containerd/io.containerd.runtime.v2.task -mindepth 2 -maxdepth 2 && echo busy
true
