#!/bin/sh
# The host's release, its free space, and the bundle's parts on it.
# usage: look.sh DIRECTORY
. /etc/os-release
echo "release|$ID|$VERSION_ID|$(dpkg --print-architecture)"
place=$1
while [ ! -e "$place" ]; do place=$(dirname "$place"); done
echo "free|$(df -Pk "$place" | awk 'NR == 2 { print $4 }')"
cd "$1" 2>/dev/null && find . -type f -printf 'file|%s|%P\n'
true
