#!/bin/sh
# A container of these tests: a read-only root with an own /tmp, and an unprivileged user, in the
# network namespace that it is started in. Like Docker with `restart: unless-stopped`, it starts the
# container again whenever it ends; a file with its name says so.
#   run.sh ROOT "SOURCE=PLACE…" STARTS NAME=VALUE… PROGRAM…
set -eu
root=$1
binds=$2
starts=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
for pair in $binds; do
    mount --bind "${pair%%=*}" "$root${pair#*=}"
    mount -o remount,bind,ro "$root${pair#*=}"
done
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
mount --rbind /sys "$root/sys"
mount --make-rslave "$root/sys"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/proc"
while :; do
    date +%s >>"$starts"
    # Its first process takes all others with it.
    unshare --mount --pid --fork --kill-child sh -c '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=1777,noexec tmpfs "$root/tmp"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        mount -t tmpfs -o mode=1777 tmpfs "$root/var/cache/vllm"
        exec setpriv --no-new-privs chroot --userspec=10001:10001 "$root" env -i "$@"
    ' sh "$root" "$@" || :
    sleep 1
done
