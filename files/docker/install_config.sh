#!/bin/sh
# Install the daemon's configuration, with the record of our keys in it.
# usage: install_config.sh CANDIDATE CONFIG RECORD_BEFORE RECORD RECORD_AFTER LAST
set -e
# Docker 20.10 cannot validate.
if dockerd --help 2>&1 | grep -q -e --validate && ! dockerd --validate --config-file "$1" >&2; then
  rm -f "$1" "$3" "$5"
  echo "dockerd rejects these settings; $2 is unchanged" >&2
  exit 1
fi
# settle_config.sh restores it if the daemon does not start with the new one. One that the daemon has
# not started with does not replace one that it has.
if systemctl --quiet is-active docker.service && { started_with "$2" || [ ! -e "$6" ]; }; then
  rm -rf "$6" "$6.llmhost-new"
  mkdir -m 0700 "$6.llmhost-new"
  cp -a "${4%/*}" "$6.llmhost-new/records"
  rm -f "$6.llmhost-new/records"/.*.llmhost-new
  [ ! -e "$2" ] || cp -p "$2" "$6.llmhost-new/daemon.json"
  mv -T "$6.llmhost-new" "$6"
fi
mv -fT "$3" "$4"
mv -fT "$1" "$2"
mv -fT "$5" "$4"
# If live-restore is loaded before the restart, containers keep running.
if systemctl --quiet is-active docker.service; then systemctl reload docker.service; fi
