#!/bin/sh
# The image of a service's engine, from its registry where it is not there yet.
# usage: pull.sh IMAGE SERVICE
docker image inspect --format . "$1" >/dev/null 2>&1 </dev/null && exit
docker pull --quiet "$1" </dev/null || {
  echo "The engine's image $1 could not be pulled:" \
    "correct $2_image, or let this host reach its registry" >&2
  exit 1
}
