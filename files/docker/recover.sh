#!/bin/sh
# Build an image from a Dockerfile that needs no context.
# usage: recover.sh DOCKERFILE OPTION...
set -e
dockerfile=$1
shift
printf '%s' "$dockerfile" |
  docker buildx build --builder default --provenance=false --progress plain "$@" -
