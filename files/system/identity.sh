#!/bin/sh
# Identity of the host, for llmhost/system/host_identity.py.
# usage: identity.sh RECEIPT PATH...
. /etc/os-release 2>/dev/null
echo "distribution=$ID"; echo "version=$VERSION_ID"; echo "codename=$VERSION_CODENAME"
echo "machine=$(uname -m)"; echo "kernel=$(uname -r)"; echo "uid=$(id -u)"; echo "user=$(id -un)"
echo "init=$(cat /proc/1/comm)"; echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
echo "virtualization=$(systemd-detect-virt 2>/dev/null)"
echo "memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
[ -e "$1" ] && echo "deployed=yes"
shift
for path; do
  place=$path; while [ ! -e "$place" ]; do place=$(dirname "$place"); done
  echo "free_kib $path=$(df -Pk "$place" | awk 'NR==2 {print $4}')"
done
# As nginx would find out: the kernel has no sockets of this kind.
LC_ALL=C bash -c ': </dev/tcp/::1/9' 2>&1 | grep -q 'Address family not supported' && echo "ipv6=off"
[ -e /snap/docker/current ] && echo "docker_of=snap"
# Podman under this name is a link or a script. Docker itself would take 20 ms to answer.
docker=$(readlink -f "$(command -v docker)")
case $docker in
  *podman*) echo "docker_of=podman" ;;
  ?*)
    [ "$(head -c 2 "$docker")" = '#!' ] && "$docker" --version 2>/dev/null | grep -qi podman &&
      echo "docker_of=podman"
    ;;
esac
true
