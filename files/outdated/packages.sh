#!/bin/sh
# Installed packages and the versions that apt would install, from the package lists as they are.
# usage: packages.sh PATTERN...
# Then the version of the loaded NVIDIA driver, and the age of the lists in seconds since 1970.
export LC_ALL=C
names=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
    sed -n 's/^installed //p' | sort -u)
# shellcheck disable=SC2086 # names are words
[ -z "$names" ] || apt-cache policy $names
echo "=driver $(sed -n 's/^NVRM version: .*  \([0-9][0-9.]*\)  .*/\1/p' /proc/driver/nvidia/version \
    2>/dev/null)"
newest=$(find /var/lib/apt/lists -maxdepth 1 -name '*Release' -printf '%T@\n' 2>/dev/null |
    sort -n | tail -n 1)
echo "=lists ${newest%%.*}"
