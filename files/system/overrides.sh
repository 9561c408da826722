#!/bin/sh
# Files that override the packaged configuration of units, for llmhost/system/overrides.py.
# usage: overrides.sh UNIT...
# Prints `unit NAME NEED_DAEMON_RELOAD`, then for each file `KIND PACKAGED PATH`, and its content as
# base64 on the next line; `failed NAME REASON` if systemd does not answer. systemd itself is not asked for the files, because it names those that it
# has loaded.
places="/etc/systemd/system.control /run/systemd/system.control /run/systemd/transient
  /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system"

show() {
  packaged=no; dpkg-query -S "$2" >/dev/null 2>&1 && packaged=yes
  echo "$1 $packaged $2"; base64 -w0 "$2"; echo
}

fragment() { # PATH NAME: a unit file that hides the packaged one
  [ -e "/usr/lib/systemd/system/$2" ] || [ -e "/lib/systemd/system/$2" ] || return
  case $(readlink -f "$1") in
    /usr/lib/systemd/* | /lib/systemd/* | /dev/null) ;; # an alias, or masked
    *) show unit-file "$1" ;;
  esac
}

environment() { # PATH: as the package ships it, or changed
  package=$(dpkg-query -S "$1" 2>/dev/null | cut -d: -f1)
  shipped=$(dpkg-query -W -f '${Conffiles}\n' "${package:-/}" 2>/dev/null | grep -F " $1 " | cut -d' ' -f3)
  [ "$(md5sum <"$1" | cut -d' ' -f1)" = "$shipped" ] || { echo "environment no $1"; base64 -w0 "$1"; echo; }
}

for unit; do
  state=$(systemctl show -p Names -p NeedDaemonReload -p EnvironmentFiles "$unit" 2>&1) ||
    { echo "failed $unit $(printf '%s\n' "$state" | tail -n 1)"; continue; }
  of() { printf '%s\n' "$state" | sed -n "s/^$1=//p"; }
  echo "unit $unit $(of NeedDaemonReload)"
  names=$(of Names)
  for place in $places; do
    for name in $names; do
      [ -f "$place/$name" ] && fragment "$place/$name" "$name"
      for file in "$place/$name.d"/*.conf; do [ -f "$file" ] && show drop-in "$file"; done
    done
    for file in "$place/${unit##*.}.d"/*.conf; do [ -f "$file" ] && show shared "$file"; done
  done
  of EnvironmentFiles | sed 's/ (.*//' | while read -r file; do
    [ -f "$file" ] && environment "$file"
  done
done
true
