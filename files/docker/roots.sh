#!/bin/sh
# Directories of Docker and containerd on the host, for llmhost/facts/docker.py.
# usage: roots.sh DOCKER_ROOT CONTAINERD_ROOT, the declared ones; the second is empty if any will do
# Prints containerd's configuration as base64 and its directory; then `moves NAME DIRECTORY` for each
# directory with data that is not the declared one, and `busy` if containers run.
base64 -w0 /etc/containerd/config.toml 2>/dev/null; echo
containerd=$(containerd config dump 2>/dev/null | sed -n "s/^root = [\"']\(.*\)[\"']$/\1/p")
echo "$containerd"

other() { [ "$(readlink -m "$1")" != "$(readlink -m "$2")" ]; }
anything() { find "$@" -print -quit 2>/dev/null | grep -q .; }

docker=$(timeout 20 docker info --format '{{.DockerRootDir}}' 2>/dev/null)
[ -n "$docker" ] || docker=$(sed -n 's/.*"data-root": *"\([^"]*\)".*/\1/p' /etc/docker/daemon.json 2>/dev/null)
docker=${docker:-/var/lib/docker}
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
