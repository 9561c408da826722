#!/bin/sh
# Makes a root read-only but for /tmp and the data of its service, and runs a command of env(1).
# Directories of this machine are in it, read-only, at the same paths.
#   enter.sh ROOT "DIRECTORY…" NAME=VALUE… PROGRAM…
set -eu
root=$1
binds=$2
shift 2
ip link set lo up
mount --make-rprivate /
mount --bind "$root" "$root"
for place in $binds; do
    mount --bind "$place" "$root$place"
    mount -o remount,bind,ro "$root$place"
done
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,noexec tmpfs "$root/tmp"
[ ! -d "$root/srv/data" ] || mount --bind "$root/srv/data" "$root/srv/data"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs env -i "$@"
