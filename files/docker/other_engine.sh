#!/bin/sh
# Names of the containers of others, if the engine is installed from this package, for
# llmhost/facts/docker.py. If the daemon does not answer, the start of the id of every container.
# usage: other_engine.sh PACKAGE PROJECT
[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] || exit 0
format='{{.Label "com.docker.compose.project"}}|{{.Names}}'
if found=$(timeout 20 docker ps --all --format "$format" 2>/dev/null); then
  printf '%s\n' "$found" | sed -n -e "/^$2|/d" -e 's/^[^|]*|//p'
else
  for each in /var/lib/docker/containers/*; do
    [ ! -d "$each" ] || printf '%.12s\n' "${each##*/}"
  done
fi
true
