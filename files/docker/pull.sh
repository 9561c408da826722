#!/bin/sh
# Pull the image of a service's engine unless it is already present.
# usage: pull.sh IMAGE SERVICE
docker image inspect --format . "$1" >/dev/null 2>&1 </dev/null && exit
docker pull --quiet "$1" </dev/null || {
  echo "The engine's image $1 could not be pulled:" \
    "correct $2_image, or let this host reach its registry" >&2
  exit 1
}
