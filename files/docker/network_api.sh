#!/bin/sh
# Fails if dockerd listens on a port that no container publishes: without the userland proxy, it
# holds published ports itself.
published=$(docker ps --quiet | xargs -r docker inspect --format \
  '{{range .NetworkSettings.Ports}}{{range .}}{{println .HostPort}}{{end}}{{end}}')
pid=$(systemctl show -P MainPID docker.service)
ss -Hltnp | awk -v "who=pid=$pid," 'index($0, who) { print $4 }' | sed 's/.*://' |
  { ! grep -vxF "$published"; } >/dev/null
