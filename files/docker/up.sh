#!/bin/sh
# Start the containers of a Compose project and wait until they are healthy. Services that an operator
# stopped get no container. Caches of earlier images, GPUs or options are removed.
# usage: up.sh FILE SECONDS [FLAG...]
file=$1
seconds=$2
shift 2
set -- --wait --wait-timeout "$seconds" "$@"
for mark in "${file%/*}"/stopped/*; do
  service=${mark##*/}
  # The mark may be of a service that is no longer declared.
  [ -e "$mark" ] && [ -e "${file%/*}/services/$service.yaml" ] || continue
  set -- "$@" --scale "$service=0"
done
docker compose --file "$file" up --detach "$@" || exit
declared=$(docker compose --file "$file" config --volumes) || exit
project=$(sed -n 's/^name: "\(.*\)"$/\1/p' "$file")
for volume in $(docker volume ls --quiet --filter label=llmhost.cache \
  --filter "label=com.docker.compose.project=$project" --filter dangling=true); do
  printf '%s\n' "$declared" | grep -qxF -e "${volume#"${project}"_}" ||
    docker volume rm "$volume" >/dev/null || true
done
