#!/bin/sh
# Runs a Python program in a container, for llmhost/facts/compose.py.
# usage: question.sh CONTAINER PROGRAM
# Prints `setting|CONTAINER|LINE` for each line of its output; if it fails, `failed|CONTAINER|REASON`.
# A container that does not run has no settings to read.
[ "$(timeout 20 docker inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ] || exit 0
errors=$(mktemp) || exit
trap 'rm -f "$errors"' EXIT
if said=$(timeout 20 docker exec "$1" python3 -c "$2" 2>"$errors"); then
  [ -z "$said" ] || printf '%s\n' "$said" | sed "s/^/setting|$1|/"
else
  status=$?
  reason=$(grep . "$errors" | tail -n 1 | cut -c 1-300)
  [ "$status" != 124 ] || reason="no answer within 20 s"
  echo "failed|$1|${reason:-exit status $status}"
fi
