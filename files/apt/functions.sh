#!/bin/sh
# Functions for scripts that change packages with apt (llmhost/system/apt.py).
#
# apt-get has waited for dpkg's lock since 1.9.11 (DPkg::Lock::Timeout), but `apt-get update` does
# not wait for the lists' lock, nor do dpkg and apt-mark for dpkg's: `apt-get check` waits for them.
#
# --force-confold: configuration files that an operator edited stay.
# apt may resolve a conflict by removing other packages. If none may be removed, --no-remove prevents
# that; otherwise, and to report which ones apt would remove, a simulation runs first, which takes
# about as long as a small installation.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
timeout=300
eval "$(apt-config shell timeout DPkg::Lock::Timeout)"
lists=/var/lib/apt/lists
eval "$(apt-config shell lists Dir::State::lists/d)"
lists=${lists%/}
refreshed=
fetched=
# Set if no package of a transaction is there yet in its version.
lacking=
not_offered="
  s/^E: Unable to locate package //p
  s/^E: Package '\(.*\)' has no installation candidate/\1/p
  s/^E: Version '\(.*\)' for '\(.*\)' was not found/\2 \1/p
"

apt() {
  apt-get -y -q -o DPkg::Lock::Timeout="$timeout" -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    --no-install-recommends "$@"
}

wait_for_lock() {
  apt check >/dev/null 2>&1 || true
}

finish_interrupted() {
  wait_for_lock
  dpkg --force-confdef --force-confold --configure -a || true
}

fresh() {
  ls "$lists"/*Release >/dev/null 2>&1 && [ -z "$(find "$lists" -maxdepth 0 -mmin +60)" ] &&
    [ -z "$(find /etc/apt/sources.list* /etc/apt/keyrings -newer "$lists" 2>/dev/null)" ]
}

refresh() {
  waited=0
  refreshed=yes
  until fetched=$(apt update 2>&1); do
    case $fetched in
      *"Unable to lock"* | *"Could not get lock"*) ;;
      *) printf '%s\n' "$fetched" >&2; return ;;
    esac
    [ "$waited" -lt "$timeout" ] || { printf '%s\n' "$fetched" >&2; return; }
    sleep 2
    waited=$((waited + 2))
  done
  touch "$lists"
}

acceptable() {
  if ! simulated=$(apt --simulate install "$@" 2>&1); then
    [ -n "$refreshed" ] || return 1
    printf '%s\n' "$simulated" >&2
    # A package list that cannot be fetched is only a warning for apt, and may be the reason.
    printf '%s\n' "$fetched" | grep '^W: ' >&2
    missing=$(printf '%s\n' "$simulated" | sed -n "$not_offered" | paste -sd, -)
    [ -z "$missing" ] || echo "No package source of this host offers: $missing" >&2
    return 1
  fi
  for gone in $(printf '%s\n' "$simulated" | awk '$1 == "Remv" { print $2 }'); do
    case " $removable " in
      *" $gone "*) ;;
      *) echo "Refused: installing $* would also remove $gone; if that is right, remove it yourself" >&2
        exit 1 ;;
    esac
  done
}

attempt() {
  if [ -n "$removable" ]; then
    acceptable "$@" && apt install "$@"
    return
  fi
  { said=$(apt --no-remove install "$@" 2>&1 >&3); } 3>&1 && return
  acceptable "$@" && printf '%s\n' "$said" >&2
  return 1
}

# Version of a package that is installed completely.
version_of() {
  dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p'
}

# Whether these packages are there, or gone, although apt failed: then it failed at others, such as
# a kernel whose DKMS module cannot be built.
reached() {
  for spec in "$@"; do
    case $spec in
      --*) ;;
      *-) [ -z "$(version_of "${spec%-}")" ] || return 1 ;;
      *=*) [ "$(version_of "${spec%%=*}")" = "${spec#*=}" ] || return 1 ;;
      *) [ -n "$(version_of "$spec")" ] || return 1 ;;
    esac
  done
}

transact() {
  fresh || refresh
  if attempt "$@" || { [ -n "$lacking" ] && reached "$@"; }; then return; fi
  [ -z "$refreshed" ] || exit 1
  refresh
  attempt "$@" || { [ -n "$lacking" ] && reached "$@"; } || exit 1
}
