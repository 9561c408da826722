#!/bin/sh
# Fails if dockerd does not answer, or listens on a port that no container publishes: without the
# userland proxy, it holds published ports itself, also those of a container that starts or stops at
# this moment. Only what is found three times in a row counts.
unpublished() {
  listens=$(ss -Hltnp | awk -v "who=pid=$1," 'index($0, who) { sub(/.*:/, "", $4); print $4 }')
  [ -n "$listens" ] || return 1
  published=$(docker ps --quiet | xargs -r docker inspect --format \
    '{{range .NetworkSettings.Ports}}{{range .}}{{println .HostPort}}{{end}}{{end}}')
  echo "$listens" | grep -qvxF "$published"
}

docker ps --quiet >/dev/null || exit
pid=$(systemctl show -P MainPID docker.service)
for wait in 1 1 0; do
  unpublished "$pid" || exit 0
  sleep "$wait"
done
exit 1
