#!/bin/sh
# The kernel's audit: llmhost/facts/audit.py reads it.
# usage: audit.sh KEY PATH...
PATH=$PATH:/usr/sbin:/sbin
key=$1
shift
# A container cannot be audited by itself; systemd counts WSL among them.
case $(systemd-detect-virt --container) in none | wsl) ;; *) exit 0 ;; esac
echo available
if command -v auditctl >/dev/null; then
  echo installed
  systemctl is-active --quiet auditd.service && echo running
  auditctl -l 2>/dev/null | grep -wF -- "$key" | sed 's/^/rule /'
fi
for path; do
  [ ! -e "$path" ] || echo "exists $path"
done
true
