"""Programs that llmhost calls on a host, by where they come from.

tests/unit/test_host_programs.py compares them with what facts, scripts and checks call;
tests/integration/test_fresh.py with a minimal machine, and with what a deploy calls on it.
"""

MINIMAL = {
    "apt": "apt-cache apt-config apt-get apt-helper apt-mark",
    "bash": "bash",
    "coreutils": "base64 cat chmod chown cp cut date df dirname head id install ln ls md5sum mkdir"
    " mkfifo mktemp mv nohup nproc od paste readlink rm seq sha256sum sleep sort stat sync tail"
    " timeout touch tr uname wc",
    "dash": "sh",
    "diffutils": "diff",
    "dpkg": "dpkg dpkg-query",
    "findutils": "find xargs",
    "grep": "grep",
    "gzip": "gzip",
    "hostname": "hostname",
    "libc-bin": "getent",
    "mawk": "awk",
    "sed": "sed",
    "systemd": "journalctl networkctl systemctl systemd-detect-virt systemd-run",
    "tar": "tar",
    "util-linux": "flock setsid unshare",
}
"""In every Debian and Ubuntu that boots: essential packages, those of priority required, apt and
systemd."""

INSTALLED = {
    "ca-certificates": "update-ca-certificates",
    "containerd": "containerd",
    "curl": "curl",
    "docker.io": "docker dockerd",
    "iproute2": "ip ss",
    "logrotate": "logrotate",
    "iptables": "iptables iptables-save ip6tables ip6tables-save",
    "nftables": "nft",
    "nginx": "nginx",
    "openssl": "openssl",
    "procps": "sysctl",
    "python3": "python3",
    "ufw": "ufw ufw-init",
}
"""By package, what the deploy installs ahead of the first call. Until then facts take the absence
for the absence of what the program is asked about."""

HANDLED = {
    "auditctl": "without it nothing is audited, which only the level cis of hardening asks for",
    "augenrules": "comes with auditd, which is installed before it is called",
    "gpg": "called only where a bundle is made, and asked for before with a sentence",
    "modinfo": "asked only about a module of NVIDIA's that is there; kernels depend on kmod",
    "modprobe": "without it, and without the module, Docker's bridges are not hardened",
    "mokutil": "without it no key counts as enrolled, and Secure Boot is refused with a sentence",
    "netplan": "asked for with command -v: a host without it is configured by systemd-networkd",
    "nmcli": "without it NetworkManager manages nothing",
    "nvidia-smi": "comes with the driver; without it the driver counts as missing",
    "sshd": "asked for with command -v: a host without it has no settings of sshd to harden",
    "update-initramfs": "called only where an initramfs is out of date",
}
"""What follows from a program's absence."""

KNOWN = {*" ".join((*MINIMAL.values(), *INSTALLED.values())).split(), *HANDLED}
