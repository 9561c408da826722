#!/bin/sh
# Fails if dockerd does not answer, or listens on a port that no container publishes: without the
# userland proxy, it holds published ports itself.
containers=$(docker ps --quiet) || exit
pid=$(systemctl show -P MainPID docker.service)
listens=$(ss -Hltnp | awk -v "who=pid=$pid," 'index($0, who) { sub(/.*:/, "", $4); print $4 }')
[ -n "$listens" ] || exit 0
published=$(echo "$containers" | xargs -r docker inspect --format \
  '{{range .NetworkSettings.Ports}}{{range .}}{{println .HostPort}}{{end}}{{end}}')
! echo "$listens" | grep -qvxF "$published"
