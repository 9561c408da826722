#!/bin/sh
# Files that override the packaged configuration of units, for llmhost/system/overrides.py.
# usage: overrides.sh UNIT...
# Prints `unit NAME NEED_DAEMON_RELOAD`, then for each file `KIND PACKAGED PATH`, and its content as
# base64 on the next line; `failed NAME REASON` if systemd does not answer. systemd itself is not
# asked for the files, because it names those that it has loaded. Starts few programs: a host has
# many units, and few overrides.
places="/etc/systemd/system.control /run/systemd/system.control /run/systemd/transient
  /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system"
conffiles=

show() { # KIND PATH
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

environment() { # PATH: as a package ships it, or changed
  [ -n "$conffiles" ] || conffiles=$(dpkg-query -W -f '${Conffiles}\n' 2>/dev/null)
  sum=$(md5sum <"$1")
  case $conffiles in
    *" $1 ${sum%% *}"*) ;;
    *) echo "environment no $1"; base64 -w0 "$1"; echo ;;
  esac
}

look() { # UNIT NAMES NEED_DAEMON_RELOAD ENVIRONMENT_FILES
  echo "unit $1 $3"
  for place in $places; do
    for name in $2; do
      [ -f "$place/$name" ] && fragment "$place/$name" "$name"
      for file in "$place/$name.d"/*.conf; do [ -f "$file" ] && show drop-in "$file"; done
    done
    for file in "$place/${1##*.}.d"/*.conf; do [ -f "$file" ] && show shared "$file"; done
  done
  while read -r file; do
    file=${file%% (*}
    [ -f "$file" ] && environment "$file"
  done <<FILES
$4
FILES
}

# For each unit lines of properties, and an empty line between units.
state=$(systemctl show -p Names -p NeedDaemonReload -p EnvironmentFiles "$@" 2>&1) || {
  for unit; do echo "failed $unit $(printf '%s\n' "$state" | tail -n 1)"; done
  exit
}
names='' reload='' files=''
while IFS= read -r line; do
  case $line in
    Names=*) names=${line#*=} ;;
    NeedDaemonReload=*) reload=${line#*=} ;;
    EnvironmentFiles=*) files="$files${line#*=}
" ;;
    '')
      [ -n "$names" ] || continue
      look "$1" "$names" "$reload" "$files"
      names='' reload='' files=''
      shift
      ;;
  esac
done <<STATE
$state

STATE
true
