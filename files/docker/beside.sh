#!/bin/sh
# Replace the container of a service without an interruption: a second container gets its requests
# while Compose recreates the first one. Without memory for both, do nothing: Compose then replaces it
# with an interruption. If the second container does not become healthy, the first one is untouched.
# usage: beside.sh FILE FIRST SECOND SERVICE IMAGE PORT INNER SECONDS NGINX LOADED [UUID=BYTES...]
# PORT is the service's on the loopback, INNER in its container; LOADED prints the digest of nginx's
# running configuration; of each GPU, so many bytes must be free.
set -eu
file=$1 first=$2 second=$3 service=$4 image=$5 port=$6 inner=$7 seconds=$8 nginx=$9
shift 9
loaded=$1
shift
longest=300 # seconds that a request may still take; a longer one is cut off

alone() {
  echo "service $service is interrupted: $1" >&2
  exit 0
}

number_after() { # the number after a word at the start of a line, such as `VmRSS:`
  sed -n "s/^$1[^0-9]*\([0-9]*\).*/\1/p"
}

# KiB in memory of the first container, and what its new image has more.
needed() {
  pid=$(docker inspect --format '{{.State.Pid}}' "$first")
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
  sum=0
  for each in $(cat "$group/cgroup.procs" 2>/dev/null || echo "$pid"); do
    own=$(number_after VmRSS: <"/proc/$each/status") || own=0
    sum=$((sum + ${own:-0}))
  done
  old=$(docker image inspect --format '{{.Size}}' "$(docker inspect --format '{{.Image}}' "$first")" \
    2>/dev/null) || old=0
  more=$((($(docker image inspect --format '{{.Size}}' "$image") - old) / 1024))
  [ "$more" -gt 0 ] || more=0
  echo $((sum + sum / 8 + more))
}

check_room() {
  free=$(number_after MemAvailable: </proc/meminfo) wanted=$(needed)
  [ "$free" -gt "$wanted" ] ||
    alone "$((free / 1024)) MiB of memory are free, and a second container needs $((wanted / 1024)) MiB"
  gpus=
  [ $# = 0 ] || gpus=$(nvidia-smi --query-gpu=uuid,memory.free --format=csv,noheader,nounits) || true
  for need in "$@"; do
    free=$(echo "$gpus" | sed -n "s/^${need%=*}, *//p") wanted=$((${need##*=} / 1048576))
    case $free in '' | *[!0-9]*) alone "nvidia-smi does not print the free memory of GPU ${need%=*}" ;; esac
    [ "$free" -ge "$wanted" ] ||
      alone "$free MiB of GPU ${need%=*} are free, and a second container needs $wanted MiB"
  done
}

await_health() {
  left=$seconds state='{{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}'
  while found=$(docker inspect --format "$state" "$second") && [ "$left" -gt 0 ]; do
    case $found in
      "running healthy") return ;;
      "running starting") ;;
      *) break ;;
    esac
    left=$((left - 1))
    sleep 1
  done
  echo "A second container of $service, beside the running one, did not become healthy; $first still" \
    "answers. The log of the second one ends with:" >&2
  docker logs --tail 20 "$second" >&2 || true
  echo "Correct the options or the models in the inventory and deploy again. If the memory is not" \
    "enough for two containers, set stack_updates_beside = False: the service is then interrupted." >&2
  exit 1
}

reload() { # $1: the digest that nginx then serves
  nginx -t -q
  systemctl reload nginx
  left=100
  until [ "$(sh -c "$loaded")" = "$1" ]; do
    [ "$left" -gt 0 ] || { echo "nginx did not load its configuration" >&2; return 1; }
    left=$((left - 1))
    sleep 0.1
  done
}

# Pass requests on to port $1 instead of the service's.
redirect() {
  for each in "$nginx/nginx.conf" "$nginx"/llmhost/*.conf; do
    grep -qE -e "127\.0\.0\.1:$port([^0-9]|$)" -e "$digest" "$each" || continue
    cp -p "$each" "$kept/"
    # Another digest: if this is interrupted, the next deploy sees that nginx runs something else.
    sed -i -E -e "s/127\.0\.0\.1:$port([^0-9]|$)/127.0.0.1:$1\1/g" -e "s/$digest/$service-beside/" "$each"
  done
  reload "$service-beside"
}

restore() {
  for each in "$kept"/*; do
    place=$nginx/llmhost/${each##*/}
    [ "${each##*/}" != nginx.conf ] || place=$nginx/nginx.conf
    [ ! -e "$each" ] || mv -f "$each" "$place"
  done
  reload "$digest"
}

# Wait until no request is open at port $1. nginx's old workers close what they do not use.
drain() {
  left=$longest
  while [ "$left" -gt 0 ]; do
    open=$(ss -Htn state established dst 127.0.0.1 and dport = ":$1")
    [ -n "$open" ] || return 0
    left=$((left - 1))
    sleep 1
  done
}

end() {
  status=$?
  trap - EXIT
  if [ -n "$(ls -A "$kept")" ]; then restore || status=1; fi
  docker rm --force "$second" >/dev/null 2>&1 || true
  rm -rf "$kept"
  exit "$status"
}

digest=$(sh -c "$loaded") && [ -n "$digest" ] || alone "nginx does not answer on its status port"
check_room "$@"
kept=$(mktemp -d)
trap end EXIT
trap 'exit 1' HUP INT TERM
docker rm --force "$second" >/dev/null 2>&1 || true
docker compose --file "$file" run --detach --no-deps --name "$second" \
  --publish "127.0.0.1::$inner" "$service" >/dev/null
await_health
published=$(docker port "$second" "$inner/tcp" | head -n 1)
redirect "${published##*:}"
drain "$port"
docker compose --file "$file" up --detach --no-deps --wait --wait-timeout "$seconds" "$service"
restore
drain "${published##*:}"
docker stop "$second" >/dev/null
