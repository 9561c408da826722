#!/bin/sh
# ufw's files and the rules that are loaded: llmhost/facts/ufw.py reads it. Files and netfilter are
# read directly: `ufw status` starts Python and asks for less.
# usage: state.sh MARK RECORD SOURCES NORMAL_FORM FILE...
mark=$1 record=$2 sources=$3 normal_form=$4
shift 4

for file; do
  echo "$mark$file"
  cat "$file" 2>/dev/null
  echo
done
echo "${mark}live"
for family in ip ip6; do
  "${family}tables-save" -t filter 2>/dev/null | sh -c "$normal_form" |
    diff -N "$record/$family" - | sed -n "s/^[<>] /$family &/p"
done
echo "${mark}facts"
# The links that systemctl would look at, without waiting for it.
[ -h /etc/systemd/system/multi-user.target.wants/ufw.service ] &&
  [ ! -h /etc/systemd/system/ufw.service ] && echo "starts-at-boot yes"
if [ -e "$record/sources" ]; then
  echo "recorded yes"
  # shellcheck disable=SC2086 # patterns
  [ "$(sha256sum $sources 2>/dev/null)" = "$(cat "$record/sources")" ] || echo "edited yes"
fi
awk '$2 == "00000000" { print "uplink", $1 }' /proc/net/route
awk '$1 ~ /^0+$/ && $2 == "00" { print "uplink", $NF }' /proc/net/ipv6_route 2>/dev/null
case $(iptables --version 2>/dev/null) in *legacy*) other=nft ;; *) other=legacy ;; esac
if [ $other = nft ] || grep -qs filter /proc/net/ip_tables_names; then
  iptables-$other-save -t filter 2>/dev/null | grep -q '^-A INPUT -j ufw' &&
    echo "other-backend iptables-$other"
fi
true
