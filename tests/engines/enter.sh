#!/bin/sh
# Makes a root read-only but for /tmp and the data of its service, and runs a command of env(1).
#   enter.sh ROOT NAME=VALUE… PROGRAM…
set -eu
root=$1
shift
ip link set lo up
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,noexec tmpfs "$root/tmp"
[ ! -d "$root/srv/data" ] || mount --bind "$root/srv/data" "$root/srv/data"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs env -i "$@"
