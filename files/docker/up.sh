#!/bin/sh
# Start the containers of a Compose project and wait until they are healthy. Services that an operator
# stopped get no container.
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
exec docker compose --file "$file" up --detach "$@"
