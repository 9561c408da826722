#!/bin/sh
# Functions of other scripts in this directory.

# containerd's directory; nothing if it is unknown.
containerd_root() {
  containerd config dump 2>/dev/null | sed -n "s/^root = [\"']\(.*\)[\"']$/\1/p"
}

# Docker's directory, and its storage driver after `|`; nothing if the daemon does not answer.
# `docker info` starts every plugin of the command line first; curl does not.
docker_root() {
  info=$(curl -sf --max-time 20 --noproxy '*' --unix-socket /run/docker.sock \
    http://docker/info 2>/dev/null)
  [ $? = 28 ] && return # the daemon hangs
  root=${info#*'"DockerRootDir":"'} status=${info#*'"DriverStatus":'}
  root=${root%%\"*}
  case $root in
    /*\\*) ;; # escaped
    /*) echo "$root|${status%%'"Plugins"'*}"; return ;;
  esac
  timeout 20 docker info --format '{{.DockerRootDir}}|{{.DriverStatus}}' 2>/dev/null
}

# Where images are kept, from the output of docker_root.
image_root() {
  case $1 in
    *io.containerd.snapshotter*) set -- "$(containerd_root)"; echo "${1:-/var/lib/containerd}" ;;
    *) set -- "${1%%|*}"; echo "${1:-/var/lib/docker}" ;;
  esac
}

# Whether the daemon has started since its configuration file changed.
started_with() {
  started=$(systemctl show --timestamp=us+utc -P ActiveEnterTimestamp docker.service)
  case $started in
    *' UTC') [ -z "$(find "$1" -newerct "$started" 2>/dev/null)" ] ;;
    *) false ;; # not since the host has started
  esac
}
