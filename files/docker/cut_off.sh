#!/bin/sh
# Replaces the last field of each line, a process of a container, by `cut` if it lost its GPUs.
#
# systemd knows nothing of devices that were added to a container's cgroup behind its back, and when
# it reloads takes them away (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48). Images
# need not have a shell: one of ours joins the container's cgroup, which is what decides, and opens
# the device from there. Devices that do not open outside of it either say nothing.
cut_off() {
  [ "${1:-0}" -gt 0 ] || return 1
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup" 2>/dev/null)
  [ -w "$group/cgroup.procs" ] || return 1
  for device in /dev/nvidiactl /dev/dxg; do
    [ -c "$device" ] && (: <"$device") 2>/dev/null || continue
    sh -c 'echo $$ >"$1" || exit 0; : <"$2"' sh "$group/cgroup.procs" "$device" 2>/dev/null ||
      return 0
  done
  return 1
}
while IFS= read -r line; do
  if cut_off "${line##*|}"; then lost="cut"; else lost=""; fi
  printf '%s\n' "${line%|*}|$lost" # echo would change the backslashes of JSON
done
