#!/bin/sh
# Build an image from the base64 of its packed context on stdin. After a line `# engine: WORD...` in the
# Dockerfile come the instructions ENV, WORKDIR and ENTRYPOINT of the engine's image, those of WORD.
# NVIDIA_VISIBLE_DEVICES is left out: which GPUs a container has is not up to its image.
# Where ENGINE does not exist, the image OTHER is used in its place, unless that is empty.
# usage: build.sh ENGINE OTHER OPTION...
set -e
engine=$1 other=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context"
base64 -d | tar -xz -C "$work/context"
if [ "$other" ] && ! docker image inspect "$engine" >/dev/null 2>&1 </dev/null; then
  sed -i "1s|^FROM .* AS engine$|FROM $other AS engine|" "$work/context/Dockerfile"
  engine=$other
fi
if [ "$engine" ]; then
  show() { docker image inspect --format "$1" "$engine" </dev/null; }
  # In a Dockerfile, these three have a meaning between double quotes.
  show '{{range .Config.Env}}{{println .}}{{end}}' >"$work/variables"
  sed -e '/^$/d' -e '/^NVIDIA_VISIBLE_DEVICES=/d' -e 's/[\\"$]/\\&/g' \
    -e 's/^\([^=]*\)=\(.*\)$/ENV \1="\2"/' "$work/variables" >"$work/ENV"
  show '{{with .Config.WorkingDir}}WORKDIR {{.}}{{end}}' >"$work/WORKDIR"
  show '{{with .Config.Entrypoint}}ENTRYPOINT {{json .}}{{end}}' >"$work/ENTRYPOINT"
  mv "$work/context/Dockerfile" "$work/Dockerfile"
  awk -v from="$work" '
    { print }
    /^# engine: / { for (i = 3; i <= NF; i++) while ((getline line < (from "/" $i)) > 0) print line }
  ' "$work/Dockerfile" >"$work/context/Dockerfile"
fi
docker buildx build --builder default --provenance=false --progress plain "$@" "$work/context" </dev/null
