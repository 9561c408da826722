#!/bin/sh
# Becomes a program in its own root: read-only but for /tmp and the directories of its user.
#   enter.sh ROOT UID PROGRAM…
set -eu
root=$1 user=$2
shift 2
ip link set lo up
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,noexec tmpfs "$root/tmp"
[ ! -d "$root/srv/data" ] || mount --bind "$root/srv/data" "$root/srv/data"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user:$user" "$root" "$@"
