#!/bin/sh
# Provide the image of a service's engine: present, taken from an image that has it on top of
# weights, or pulled. The taken one has the name RECOVERED.
# usage: pull.sh IMAGE SERVICE TAG RECOVERED
present() { docker image inspect --format . "$1" >/dev/null 2>&1 </dev/null; }

# The weights are removed from a layer above: their layers are shared, nothing is copied.
recover() {
  holder=$(docker image ls --filter "label=llmhost.engine=$1" --format '{{.Repository}}:{{.Tag}}' \
    'llmhost/*' </dev/null | head -n 1)
  [ "$holder" ] || return
  places=$(docker image inspect --format '{{index .Config.Labels "llmhost.places"}}' "$holder" </dev/null)
  case $places in
    '[]') command='["true"]' ;;
    *) command="[\"rm\", \"-rf\", ${places#[}" ;;
  esac
  printf 'FROM %s\nRUN --network=none %s\n' "$holder" "$command" |
    docker buildx build --builder default --provenance=false --quiet --tag "$2" - >/dev/null 2>&1
}

if ! present "$1"; then
  recover "$1" "$4" && exit
  docker pull --quiet "$1" </dev/null || {
    echo "The engine's image $1 could not be pulled:" \
      "correct $2_image, or let this host reach its registry" >&2
    exit 1
  }
fi
docker tag "$1" "$3" </dev/null
