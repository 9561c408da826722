#!/bin/sh
# Fails if dockerd does not answer, or listens on a port that no container publishes: without the
# userland proxy, it holds published ports itself.
containers=$(docker ps --quiet) || exit
published=$(echo "$containers" | xargs -r docker inspect --format \
  '{{range .NetworkSettings.Ports}}{{range .}}{{println .HostPort}}{{end}}{{end}}')
pid=$(systemctl show -P MainPID docker.service)
ss -Hltnp | awk -v "who=pid=$pid," 'index($0, who) { print $4 }' | sed 's/.*://' |
  { ! grep -vxF "$published"; } >/dev/null
