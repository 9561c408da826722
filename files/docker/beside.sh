#!/bin/sh
# Replace the container of a service without an interruption: a second container gets its requests
# while Compose recreates the first one. Without memory for both, do nothing: Compose then replaces it
# with an interruption. If the second container does not become healthy, the first one is untouched, and
# its file EARLIER is restored.
# usage: beside.sh FILE FIRST SECOND SERVICE IMAGE PORT INNER SECONDS EARLIER NGINX LOADED BYTES
#        [UUID=BYTES...]
# PORT is the service's on the loopback, INNER in its container. LOADED prints the digest of nginx's
# running configuration. At least BYTES of memory must be free, and so many of each GPU.
set -eu
file=$1 first=$2 second=$3 service=$4 image=$5 port=$6 inner=$7 seconds=$8 earlier=$9
shift 9
nginx=$1 loaded=$2 least=$3
shift 3
longest=300 # seconds that a request may still take; a longer one is cut off
uploading=60 # seconds for requests that no container has yet

alone() {
  echo "note: service $service is interrupted: $1" >&2
  exit 0
}

number_after() { # the number after a word at the start of a line, such as `VmRSS:`
  sed -n "s/^$1[^0-9]*\([0-9]*\).*/\1/p"
}

# KiB in memory of the first container, and what its new image has more. Fails if that cannot be read;
# `set -e` does not hold in it, because its caller asks whether it failed.
needed() {
  pid=$(docker inspect --format '{{.State.Pid}}' "$first") && [ "$pid" -gt 0 ] || return 1
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
  sum=0
  for each in $(cat "$group/cgroup.procs" 2>/dev/null || echo "$pid"); do
    own=$(number_after VmRSS: <"/proc/$each/status") || own=0
    sum=$((sum + ${own:-0}))
  done
  old=$(docker image inspect --format '{{.Size}}' "$(docker inspect --format '{{.Image}}' "$first")" \
    2>/dev/null) || old=0
  [ "$sum" -gt 0 ] && new=$(docker image inspect --format '{{.Size}}' "$image") || return 1
  more=$(((new - old) / 1024))
  [ "$more" -gt 0 ] || more=0
  sum=$((sum + sum / 8 + more))
  [ "$sum" -gt $((least / 1024)) ] || sum=$((least / 1024))
  echo "$sum"
}

check_room() {
  wanted=$(needed) || alone "the memory of its container could not be read"
  free=$(number_after MemAvailable: </proc/meminfo)
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

# The process that holds the host's lock for this deploy (files/history/lock.sh): it ends with the
# connection. A script without a terminal would not notice.
lock=/run/llmhost/deploy.lock
holder=$(sed -n 2p "${lock%.lock}.owner" 2>/dev/null) || holder=
ls -l "/proc/$holder/fd" 2>/dev/null | grep -q "$lock\$" || holder=

check_deploy() {
  [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null || { echo "the deploy has ended" >&2; exit 1; }
}

health() {
  docker inspect --format '{{.State.Status}} {{with .State.Health}}{{.Status}}{{end}}' "$1" 2>/dev/null
}

await_health() {
  left=$seconds
  while found=$(health "$second") && [ "$left" -gt 0 ]; do
    case $found in
      "running healthy") return ;;
      "running starting") ;;
      *) break ;;
    esac
    check_deploy
    left=$((left - 1))
    sleep 1
  done
  ! [ -e "$earlier" ] || cp -p "$earlier" "${file%/*}/services/$service.yaml"
  docker logs --tail 20 "$second" >&2 || true
  echo "A second container of $service, beside the running one, did not become healthy; $first still" \
    "answers. The log of the second one is above. Correct the options or the models in the inventory and" \
    "deploy again. If the memory is not enough for two containers, set stack_updates_beside = False: the" \
    "service is then interrupted." >&2
  exit 1
}

reload() { # $1: the digest that nginx then serves
  nginx -t -q
  systemctl reload nginx
  tries=100
  until [ "$(sh -c "$loaded")" = "$1" ]; do
    [ "$tries" -gt 0 ] || { echo "nginx did not load its configuration" >&2; return 1; }
    tries=$((tries - 1))
    sleep 0.1
  done
}

# Pass requests on to port $1 instead of the service's, until nginx is started or reloaded: its files
# are as before. The digest is another one, so that a deploy after an interrupted one reloads it.
redirect() {
  for each in "$nginx/nginx.conf" "$nginx"/llmhost/*.conf; do
    grep -qE -e "127\.0\.0\.1:$port([^0-9]|$)" -e "$digest" "$each" || continue
    cp -p "$each" "$kept/"
    sed -i -E -e "s/127\.0\.0\.1:$port([^0-9]|$)/127.0.0.1:$1\1/g" -e "s/$digest/$service-beside/" "$each"
  done
  redirected=yes
  reload "$service-beside"
  restore_files
}

restore_files() {
  for each in "$kept"/*; do
    place=$nginx/llmhost/${each##*/}
    [ "${each##*/}" != nginx.conf ] || place=$nginx/nginx.conf
    ! [ -e "$each" ] || mv -f "$each" "$place"
  done
}

# Wait at most $2 seconds until no request is open at port $1. nginx's old workers close connections
# that they do not use; one that still reads a request has not opened its connection.
drain() {
  waited=0
  while [ "$waited" -lt "$2" ]; do
    sleep 1
    waited=$((waited + 1))
    check_deploy
    open=$(ss -Htn state established dst 127.0.0.1 and dport = ":$1")
    [ -z "$open" ] || continue
    [ "$waited" -lt "$uploading" ] &&
      grep -qs '^nginx: worker process is shutting down' /proc/[0-9]*/cmdline || return 0
  done
  echo "note: requests to service $service that were open after $2 s were cut off" >&2
}

end() {
  status=$?
  trap - EXIT
  set +e
  restore_files
  rm -rf "$kept"
  if [ "$redirected" ]; then
    if [ "$(health "$first")" != "running healthy" ]; then
      echo "$first is not healthy: $second answers until the next deploy" >&2
      exit "$status"
    fi
    holder=
    reload "$digest" || status=1
    drain "${published##*:}" 30
  fi
  docker rm --force "$second" >/dev/null 2>&1
  exit "$status"
}

digest=$(sh -c "$loaded") && [ -n "$digest" ] || alone "nginx does not answer on its status port"
check_room "$@"
kept=$(mktemp -d) redirected=
trap end EXIT
trap 'exit 1' HUP INT TERM
docker rm --force "$second" >/dev/null 2>&1 || true
docker compose --file "$file" run --detach --no-deps --name "$second" \
  --publish "127.0.0.1::$inner" "$service" >/dev/null
await_health
published=$(docker port "$second" "$inner/tcp" | head -n 1)
[ -n "$published" ] || { echo "$second has no port" >&2; exit 1; }
redirect "${published##*:}"
drain "$port" "$longest"
docker compose --file "$file" up --detach --no-deps --wait --wait-timeout "$seconds" "$service"
reload "$digest"
drain "${published##*:}" "$longest"
redirected=
docker stop "$second" >/dev/null
