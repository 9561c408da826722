#!/bin/sh
# Free space for images and for uploads, sizes of downloads and of engines, for
# llmhost/facts/disk_space.py. Values that cannot be read are left out. Needs functions.sh.
# usage: room.sh UPLOADS [PLACE...] -- [ENGINE...]

# With a timeout, because the daemon may hang.
docker() { timeout 20 docker "$@"; }

# The directory may not exist yet.
place() {
  path=$2
  until [ -e "$path" ]; do path=$(dirname "$path"); done
  echo "$1|$(stat -c %d "$path")|$(df -Pk "$path" | awk 'NR == 2 { print $4 }')|$2"
}

last_length() {
  tr -d '\r' | awk 'tolower($1) == "content-length:" { n = $2 } END { print n }'
}

# Of a file in the site's store, or of a download.
length() {
  case $1 in
    /*) timeout 20 stat -L -c %s "$1" 2>/dev/null ;;
    *) curl --head --location --fail --silent --max-time 20 "$1" | last_length ;;
  esac
}

# Use plain HTTP only for registries that the daemon may call without TLS.
engine() {
  size=$(docker image inspect --format '{{.Size}}' "$1" 2>/dev/null)
  if [ -n "$size" ]; then
    echo "unpacked|$1|$size"
    return
  fi
  # From an image that has it on top of weights: what that has more than the weights.
  base=$(docker image ls --quiet --filter "label=llmhost.engine=$1" 'llmhost/*' 2>/dev/null | head -n 1)
  if [ "$base" ]; then
    weights=$(docker image inspect --format '{{index .Config.Labels "llmhost.weights"}}' "$base")
    below=$(docker image inspect --format '{{.Size}}' "$weights" 2>/dev/null)
    size=$(docker image inspect --format '{{.Size}}' "$base")
    echo "unpacked|$1|$((size - ${below:-0}))"
    return
  fi
  index="{{with index .RegistryConfig.IndexConfigs \"${1%%/*}\"}}{{.Secure}}{{end}}"
  insecure=
  [ "$(docker info --format "$index")" != false ] || insecure=--insecure
  docker manifest inspect --verbose $insecure "$1" 2>/dev/null | sed "s,^,engine|$1|,"
}

found=$(docker_root)
case $found in *io.containerd.snapshotter*) echo twice ;; esac
place images "$(image_root "$found")"
place uploads "$1"
shift
# All in parallel: without a network, each one runs into its timeout.
while [ "$1" != -- ]; do
  echo "size|$1|$(length "$1")" &
  shift
done
wait
shift
for name; do engine "$name"; done
true
