#!/bin/sh
# Cut a host's network, for at most SECONDS.
# usage: cut.sh TABLE UNIT SECONDS RULES
set -e
nft=$(command -v nft) || {
  echo "nft is not installed: to install it, deploy again" >&2
  exit 1
}
networks=$(docker network ls --quiet --no-trunc --filter driver=bridge)
# shellcheck disable=SC2086
names=$(docker network inspect --format '{{index .Options "com.docker.network.bridge.name"}}' \
  $networks | grep . || true)
bridges=$(
  {
    echo docker0
    echo "$names"
    for network in $networks; do printf 'br-%.12s\n' "$network"; done
  } | sed -n 's/..*/"&"/p' | sort -u | paste -sd, -
)
"$nft" delete table inet "$1" 2>/dev/null || true
systemctl stop "$2.timer" 2>/dev/null || true
systemd-run --quiet --collect --unit "$2" "--on-active=$3" \
  --timer-property=AccuracySec=1s "$nft" delete table inet "$1"
printf '%s\n' "$4" | sed "s/BRIDGES/$bridges/" | "$nft" -f -
