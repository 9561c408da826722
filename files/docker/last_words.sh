#!/bin/sh
# Print the end of the log of each unhealthy container of a project. Exits with 1.
# usage: last_words.sh PROJECT
for container in $(docker ps --all --quiet --filter "label=com.docker.compose.project=$1"); do
  state='{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}'
  case $(docker inspect --format "$state" "$container") in
    "running healthy" | "running ") continue ;;
    "created "*) continue ;; # It waits for another one, which is reported.
  esac
  name=$(docker inspect --format '{{.Name}}' "$container")
  echo "${name#/} did not become healthy; its log ends with:" >&2
  docker logs --tail 20 "$container" >&2
  echo "Correct its options or its models in the inventory and deploy again;" \
    "for the whole log, run: docker logs ${name#/}" >&2
done
exit 1
