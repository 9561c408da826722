#!/bin/sh
# What the checks in items.toml call; llmhost/verify/hardening.py puts this before them.

# Every running container: the value of a Go template matches a pattern.
every() {
  docker ps --quiet | xargs -r docker inspect --format "$1" | { ! grep -qvxE -- "$2"; }
}

# dockerd's configuration: a Python expression about `config`.
daemon() {
  python3 - "$1" <<'PYTHON'
import json, pathlib, sys
file = pathlib.Path("/etc/docker/daemon.json")
config = json.loads(file.read_text() or "{}") if file.exists() else {}
sys.exit(not eval(sys.argv[1]))
PYTHON
}

# What exists of these paths belongs to an owner, and has at most these permissions.
guarded() {
  owner=$1 mode=$2
  shift 2
  for path; do
    [ -e "$path" ] || continue
    # In containers, systemd makes some paths links.
    path=$(readlink -f "$path")
    echo "$owner" | grep -qwF "$(stat -c %U:%G "$path")" || return 1
    excess=$(printf '%o' $((07777 & ~0$mode)))
    # find takes /0 for any permissions.
    [ "$excess" = 0 ] || [ -z "$(find "$path" -maxdepth 0 -perm "/$excess")" ] || return 1
  done
}

# The kernel reports changes of a path, or there is none.
audited() {
  [ ! -e "$1" ] || auditctl -l 2>/dev/null | grep -qE -- "(-w |dir=|path=)$1/? "
}

# A setting of sshd has one of these values.
ssh_has() {
  # sshd needs it even to print its settings.
  [ -d /run/sshd ] || mkdir -m 0755 /run/sshd
  PATH=$PATH:/usr/sbin sshd -T 2>/dev/null | grep -qixE "$1 ($2)"
}

# A parameter of the kernel has one of these values, or the kernel does not have it.
kernel_has() {
  path=/proc/sys/$(echo "$1" | tr . /)
  [ ! -e "$path" ] || grep -qxE "$2" "$path"
}

# The kernel can limit this (memory, cpu, pids).
controls() {
  grep -qw "$1" /sys/fs/cgroup/cgroup.controllers
}

# The host has a kernel of its own.
own_kernel() {
  case $(systemd-detect-virt --container) in none | wsl) ;; *) return 1 ;; esac
}

installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}
