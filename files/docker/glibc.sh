#!/bin/sh
# Refuses a built image whose C library is musl: ONNX Runtime does not load there.
# usage: glibc.sh IMAGE SERVICE
# The image need not have a shell: the container is never started, and its command need not exist.
container=$(docker create --pull never "$1" /bin/true) || exit
docker cp "$container:/lib/ld-musl-$(uname -m).so.1" - >/dev/null 2>&1
is_musl=$?
docker rm "$container" >/dev/null || exit
[ "$is_musl" != 0 ] || {
  docker image rm "$1" >/dev/null
  echo "the image of $2 has musl (Alpine), and ONNX Runtime needs glibc: use a Debian base image" >&2
  exit 1
}
