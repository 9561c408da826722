#!/bin/sh
# Everything about NVIDIA on a host: llmhost/nvidia/state.py reads it.
# usage: state.sh ROOT WANTED PATTERNS MOK_KEYS BLACKLIST
# ROOT stands before every path that is read, so that a tree of files can play a host.
root=$1 wanted=$2 patterns=$3 mok_keys=$4 blacklist=$5

say() { printf '%s %s\n' "$1" "$2"; }
first() { head -n 1 "$@" 2>/dev/null; }

# Output and status of a program. One that waits in the kernel for a broken GPU cannot be killed: it
# is left behind after 30 s.
short() {
  place=$(mktemp -d) && mkfifo "$place/status" || return
  { timeout 30 "$@" >"$place/output" 2>&1; echo $? >"$place/status"; } >/dev/null 2>&1 </dev/null &
  status=$(timeout 32 cat "$place/status") || status=124
  [ "$status" = 124 ] && echo "$1 did not answer within 30 s" >>"$place/output"
  cat "$place/output"; rm -r "$place"
  return "$status"
}

kernel=$(first "$root/proc/sys/kernel/osrelease")
say running_kernel "$kernel"
say wsl_gpu "$([ -e "$root/dev/dxg" ] && echo yes)"
say init "$(first "$root/proc/1/comm")"
if [ -r "$root/etc/os-release" ]; then . "$root/etc/os-release"; fi
say release "$ID-$VERSION_ID"
say machine "$(uname -m)"
for device in "$root"/sys/bus/pci/devices/*; do
  vendor= # read by the shell itself: servers have hundreds of devices
  read -r vendor 2>/dev/null <"$device/vendor"
  [ "$vendor" = 0x10de ] || continue
  config=$(od -An -v -t x1 -N 256 "$device/config" 2>/dev/null | tr -d ' \n')
  say pci "${device##*/} $(first "$device/class") $(first "$device/device") $config"
done
say board "$(cat "$root/proc/device-tree/compatible" 2>/dev/null | tr '\000' ' ')"
case $kernel in *[Mm]icrosoft*|*WSL*) smi=$root/usr/lib/wsl/lib/nvidia-smi ;; *) smi= ;; esac
if [ -z "$smi" ] && ! grep -qsx 0x10de "$root"/sys/bus/pci/devices/*/vendor && [ -z "$wanted" ]
then exit 0; fi

say wsl_conf "is $(cat "$root/etc/wsl.conf" 2>/dev/null | base64 | tr -d '\n')"
say loaded "$(first "$root/proc/driver/nvidia/version")"
[ -d "$root/sys/module/nouveau" ] && say nouveau loaded
next=$(cd "$root/boot" 2>/dev/null && ls -d vmlinuz-[0-9]* 2>/dev/null | sort -V | tail -n 1)
next=${next#vmlinuz-}; next=${next:-$kernel}
say next_kernel "$next"
initrd=$root/boot/initrd.img-$next; blacklist=$root$blacklist
# shellcheck disable=SC3013 # dash has -nt, too
[ -e "$initrd" ] && [ "$blacklist" -nt "$initrd" ] && say initramfs stale
# Debian calls the file nvidia-current.ko. As for modprobe, updates/ comes first.
module=$(find "$root/lib/modules/$next" -name 'nvidia*.ko*' 2>/dev/null |
  sed 's|.*/updates/|0 &|; t; s|^|1 |' | sort | cut -c 3- | while read -r file; do
    [ "$(modinfo -F name "$file" 2>/dev/null)" = nvidia ] && echo "$file" && break
  done)
if [ -n "$module" ]; then
  for field in version license signer; do
    say "module_$field" "$(modinfo -F "$field" "$module" 2>/dev/null | head -n 1)"
  done
fi
variable=$root/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e "$variable" ] && say secure_boot "$(od -An -t u1 -j 4 -N 1 "$variable" | tr -d ' ')"
# As DKMS reads it; it may name another key.
own_key=$(cat "$root"/etc/dkms/framework.conf "$root"/etc/dkms/framework.conf.d/*.conf 2>/dev/null |
  sed -n "s/^[[:space:]]*mok_certificate=[\"']*\([^\"' ]*\).*/\1/p" | tail -n 1)
say dkms_key "$own_key"
for key in $mok_keys $own_key; do
  [ -e "$root$key" ] || continue
  mokutil --test-key "$root$key" 2>&1 | grep -q 'is already enrolled' && say mok "$key"
done

# Libraries of another architecture (i386: Steam, Wine) have the same names.
native=$(dpkg --print-architecture 2>/dev/null)
set -f # The patterns are dpkg's, not the shell's.
# shellcheck disable=SC2086
dpkg-query --admindir="$root/var/lib/dpkg" -W \
  -f '${Architecture} package ${db:Status-Abbrev} ${Package} ${Version}\n' $patterns 2>/dev/null |
  sed -n "s/^\(all\|$native\) package/package/p"
parts=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Abbrev} ${Package}\n' \
  'nvidia-utils-*' 'libnvidia-compute*' nvidia-smi nvidia-driver-cuda libcuda1 2>/dev/null |
  sed -n 's/^.i. *//p')
# shellcheck disable=SC2086
[ -n "$parts" ] && apt-cache -o Dir="${root:-/}" madison $parts 2>/dev/null |
  while IFS=' |' read -r _ version _; do say offered "$version"; done | sort -u
set +f
for unit in nvidia-cdi-refresh.path nvidia-cdi-refresh.service; do
  for place in etc usr/lib lib; do
    [ -e "$root/$place/systemd/system/$unit" ] && say unit "$unit" && break
  done
done
for spec in "$root"/etc/cdi/*.yaml "$root"/etc/cdi/*.json \
  "$root"/var/run/cdi/*.yaml "$root"/var/run/cdi/*.json; do
  [ -e "$spec" ] || continue
  say cdi "${spec#"$root"} $(gzip -c "$spec" | base64 | tr -d '\n')"
  # Of mounts, device nodes and hooks; in YAML and JSON alike.
  grep -oE '("hostPath"|"path"|\<hostPath|\<path): *"?/[^",}]+' "$spec" | sed 's/^[^/]*//' |
    sort -u | while read -r path; do
      [ -e "$root$path" ] || say cdi_gone "${spec#"$root"} $path"
    done
done
[ -e "$root/run/reboot-required" ] &&
  say reboot_required "by $(sort -u "$root/run/reboot-required.pkgs" 2>/dev/null | tr '\n' ' ')"

[ -e "$root/run/llmhost-gpu/power" ] && sed 's/^/power_said /' "$root/run/llmhost-gpu/power"
if [ -z "$smi" ]; then smi=$root/usr/bin/nvidia-smi; fi
if [ -x "$smi" ]; then
  query=index,uuid,pci.bus_id,driver_version,persistence_mode,power.limit,mig.mode.current
  query=$query,memory.total,power.min_limit,power.max_limit,name
  answer=$(short "$smi" --query-gpu=$query --format=csv,noheader,nounits)
  case $? in 0 | 14) tag=gpu ;; *) tag=smi_error ;; esac # 14: it warns of a corrupted infoROM
  printf '%s\n' "$answer" | sed "s/^/$tag /"
fi
true
