"""What a site and the way to its hosts lack."""

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmhost.cli.inventory_file import InventoryError, read_inventory
from llmhost.cli.remote import remote
from llmhost.gateway.authority import has_authority
from llmhost.inventory.role import Role
from llmhost.inventory.site import Site, SiteHost
from llmhost.inventory.site_reader import SiteError, no_rules, no_site_rules
from llmhost.operations.inventory import inventory_site
from llmhost.secret import read_secret
from llmhost.status.findings import Finding
from llmhost.units import counted

_AT_ONCE = 16
_PROBE = 'id -u; if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then echo root; fi'
# What OpenSSH prints, what it means, and the fix; {target} is `user@address`, with its port.
_SSH_ERRORS = (
    ("Permission denied", "refuses the SSH login; copy your key to it", "ssh-copy-id {target}"),
    (
        "Host key verification failed",
        "is unknown to SSH, or has another host key; compare the key that ssh shows",
        "ssh {target}",
    ),
    ("Could not resolve", "has an unknown name", "correct ssh_hostname in the inventory"),
    ("No route", "cannot be reached from here", "check its address, and that it is on"),
    ("timed out", "does not answer", "check its address and firewall, and that it is on"),
    (
        "refused",
        "refuses connections to its SSH port",
        "correct ssh_port, or there: sudo apt-get install openssh-server",
    ),
)


def site_findings(path: str) -> list[Finding]:
    """All findings about an inventory, its directory and its hosts."""
    if not Path(path).is_file():
        what = f"no inventory file {path}; give one that exists, or create a site"
        return [Finding("site.inventory", "missing", what, "llmhost init my-site")]
    found = [Finding("site.inventory", "ok", f"inventory {path}")]
    try:
        inventory = read_inventory(path)
    except InventoryError as error:
        return [Finding("site.inventory", "missing", str(error))]
    hosts = [*inventory]
    try:
        inventory_site(inventory, hosts)
        found.append(Finding("site.options", "ok", f"options of {counted(len(hosts), 'host')}"))
    except SiteError as error:
        found += [Finding("site.options", "missing", sentence) for sentence in error.sentences]
    try:
        site = inventory_site(inventory, hosts, no_rules, no_site_rules)
    except SiteError:
        return found  # the settings of a host cannot be read at all
    return [*found, *_authority(site), *_announcements(site), *_hosts([*site.values()])]


def _authority(site: Site) -> Iterator[Finding]:
    """The authority's private key, if there is one yet, is the owner's alone."""
    gateways = [host.settings.gateway for host in site.values() if host.role is not Role.APP_SERVER]
    for directory in {each.ca_directory.expanduser() for each in gateways if each.tls == "ca"}:
        if not has_authority(directory):
            what = f"no certificate authority in {directory} yet; the first deploy creates it"
            fix = "if the site is deployed already, copy the directory from its controller"
            yield Finding("site.authority", "advice", what, fix)
        elif (directory / "ca.key").stat().st_mode & 0o077:
            fix = f"chmod 600 {shlex.quote(str(directory / 'ca.key'))}"
            yield Finding(
                "site.authority",
                "missing",
                "other users can read the certificate authority's key",
                fix,
            )
        else:
            yield Finding("site.authority", "ok", f"certificate authority {directory}: back it up")


def _announcements(site: Site) -> Iterator[Finding]:
    """Secrets of announcements: a deploy without them succeeds, and nobody hears of it."""
    for key, reference in {
        (name, reference)
        for host in site.values()
        for name, reference in host.settings.announce.secrets.items()
    }:
        try:
            read_secret(reference)
        except ValueError as error:
            yield Finding("site.announce", "missing", f"{key} {error}", "create it, or remove it")
        else:
            yield Finding("site.announce", "ok", key)


def _hosts(hosts: Sequence[SiteHost]) -> list[Finding]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [*pool.map(_host, sorted(hosts, key=lambda host: host.name))]


def _host(host: SiteHost) -> Finding:
    """Whether OpenSSH logs in, and becomes root."""
    with remote(host.name, host.data) as machine:
        ran = machine.attempt_as_login(_PROBE)
    lines = ran.stdout.decode(errors="replace").split()
    name = f"host.{host.name}"
    if "root" in lines:
        return Finding(name, "ok", f"{host.name}: SSH login works, with root access")
    if lines:
        what = f"{host.name}: the login user cannot use sudo without a password"
        rule = 'echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/llmhost'
        return Finding(name, "missing", what, f"there, run: {rule}")
    return _unreached(host, ran.stderr.decode(errors="replace").strip())


def _unreached(host: SiteHost, said: str) -> Finding:
    user, port = host.data.get("ssh_user"), host.data.get("ssh_port")
    target = f"{user}@{host.contact}" if user else host.contact
    target = f"-p {port} {target}" if port else target
    for sign, what, fix in _SSH_ERRORS:
        if sign in said:
            what, fix = f"{host.name} {what}", fix.format(target=target)
            return Finding(f"host.{host.name}", "missing", what, fix)
    last = said.splitlines()[-1] if said else "ssh printed nothing"
    return Finding(f"host.{host.name}", "missing", f"{host.name}: {last}", f"ssh {target}")
