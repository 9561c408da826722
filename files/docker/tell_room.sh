#!/bin/sh
# Prefix of a script in which Docker may run out of disk space: reports that, and how to fix it.
# Needs functions.sh.
tell_room() {
  root=$(image_root "$(docker_root)")
  free=$(df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge 1024 ] || echo "Only $free MiB are free below $root (df -h $root):" \
    "free disk space or move docker_data_root, then deploy again" >&2
}
trap '[ $? -eq 0 ] || tell_room' EXIT
