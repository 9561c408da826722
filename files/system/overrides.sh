#!/bin/sh
# Files that override the packaged configuration of units, for llmhost/system/overrides.py.
# usage: overrides.sh UNIT...
# Prints `unit NAME NEED_DAEMON_RELOAD`, then for each file `KIND PACKAGED PATH`, and its content as
# base64 on the next line; `edited PACKAGE PATH`, with the content, for a packaged unit file that was
# changed; `failed NAME REASON` if systemd does not answer. systemd itself is not asked for the files,
# because it names those that it has loaded. Starts few programs: a host has many units, and few
# overrides.
places="/etc/systemd/system.control /run/systemd/system.control /run/systemd/transient
  /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system"
vendor=/usr/lib/systemd/system # of packages; only what they do not own counts
info=/var/lib/dpkg/info
conffiles=

show() { # KIND PATH
  packaged=no
  if dpkg-query -S "$2" >/dev/null 2>&1; then
    packaged=yes
  else
    # Packages may name files below /usr/lib by the link to it.
    case $2 in /usr/lib/*) dpkg-query -S "${2#/usr}" >/dev/null 2>&1 && packaged=yes ;; esac
  fi
  echo "$1 $packaged $2"; base64 -w0 "$2"; echo
}

fragment() { # PATH NAME: a unit file that hides the packaged one
  [ -e "/usr/lib/systemd/system/$2" ] || [ -e "/lib/systemd/system/$2" ] || return
  case $(readlink -f "$1") in
    /usr/lib/systemd/* | /lib/systemd/* | /dev/null) ;; # an alias, or masked
    *) show unit-file "$1" ;;
  esac
}

edited() { # NAME: a packaged unit file that was changed
  case $checked in *FAILED*) ;; *) return ;; esac
  file="$vendor/$1"
  [ -f "$file" ] && [ ! -L "$file" ] || return
  ! printf '%s\n' "$checked" | grep -q "/systemd/system/$1: OK$" || return
  printf '%s\n' "$checked" | grep -q "/systemd/system/$1: FAILED$" || return
  owner=$(printf '%s\n' "$sums" |
    sed -n "/system\/$1\$/ { s|^$info/\([a-z0-9.+-]*\).*|\1|p; q; }")
  owner=${owner%.md5sums}
  version=$(dpkg-query -W -f '${Version}' "$owner" 2>/dev/null)
  echo "edited $owner${version:+=$version} $file"; base64 -w0 "$file"; echo
}

drop_ins() { # KIND DIRECTORY
  for file in "$2"/*.conf; do [ -f "$file" ] && show "$1" "$file"; done
}

prefixed() { # PLACE NAME: directories for all units whose names begin alike, up to a dash
  stem=${2%.*}
  while [ "$stem" != "${stem%-*}" ]; do
    stem=${stem%-*}
    drop_ins shared "$1/$stem-.${2##*.}.d"
  done
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
  edited "$1"
  for place in $places $vendor; do
    for name in $2; do
      [ "$place" = "$vendor" ] || [ ! -f "$place/$name" ] || fragment "$place/$name" "$name"
      drop_ins drop-in "$place/$name.d"
      prefixed "$place" "$name"
    done
    drop_ins shared "$place/${1##*.}.d"
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
# One look at all units. A file of two packages, of which one replaced it, is that of either.
sums=$(grep -H -F -e "$(printf '/systemd/system/%s\n' "$@")" "$info"/*.md5sums 2>/dev/null |
  sed 's|:\([0-9a-f]\{32\}  \)|:\1/|' |
  grep -e '  /usr/lib/systemd/system/' -e '  /lib/systemd/system/')
checked=$(printf '%s\n' "$sums" | sed 's|^.*:\([0-9a-f]\{32\}  \)|\1|' |
  LC_ALL=C md5sum --check 2>/dev/null)
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
