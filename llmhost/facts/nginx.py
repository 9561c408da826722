"""nginx's configuration on disk, and the one that is running."""

import shlex
from collections.abc import Sequence

from pyinfra.api import FactBase

from llmhost.facts.files import PathStates, parse_states
from llmhost.gateway.nginx import NginxState, loaded_command, parse_state
from llmhost.resources import script

_MARK = "service "

# Excludes the addresses of containers, and IPv6's temporary privacy addresses.
_ADDRESSES = (
    "ip -o address show scope global 2>/dev/null"
    " | grep -v -e temporary -e deprecated"
    " | awk '$2 !~ /^(docker|br-|veth|virbr|cni)/ { sub(/[/].*/, \"\", $4); print $4 }'"
)

_CERTIFICATE = "sed -n '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/ { p; /END/q }'"
# systemctl and openssl take longer than everything else here, so each is started once.
_UNIT = (
    "systemctl show --property=ActiveState,UnitFileState nginx.service 2>/dev/null"
    f" | sed 's/^/{_MARK}/'"
)


class Nginx(FactBase[NginxState]):
    """State of these paths, of every file below `under`, of the unit, and of the running nginx.

    From `certificate`, a PEM file with its key, only the certificate and the public key are read;
    the private one stays on the host.
    """

    @staticmethod
    def default() -> NginxState:
        return NginxState()

    def command(self, paths: list[str], under: str, status_port: int, certificate: str) -> str:
        file = shlex.quote(certificate)
        outputs = {
            "loaded": loaded_command(status_port),
            "version": "nginx -v 2>&1 | grep -o 'nginx/[0-9.]*'",
            "certificate": f"{_CERTIFICATE} {file} 2>/dev/null | base64 -w0",
            "key": f"[ -e {file} ] && openssl pkey -pubout -in {file} 2>/dev/null | base64 -w0",
            "names": f"echo $(uname -n) $({_ADDRESSES})",
        }
        asked = [f'echo "{_MARK}{key}=$({command})"' for key, command in outputs.items()]
        return "; ".join([PathStates().command(paths, under), _UNIT, *asked])

    def process(self, output: list[str]) -> NginxState:
        service = [line.removeprefix(_MARK) for line in output if line.startswith(_MARK)]
        paths = parse_states([line for line in output if not line.startswith(_MARK)])
        return parse_state(paths, service)


class OtherSites(FactBase[Sequence[str]]):
    """Files with which an nginx that llmhost has not set up serves sites.

    `directory` is that of llmhost's own configuration: if it exists, nginx is llmhost's.
    """

    @staticmethod
    def default() -> Sequence[str]:
        return ()

    def command(self, directory: str) -> str:
        return script("gateway/other_sites.sh", directory)

    def process(self, output: list[str]) -> Sequence[str]:
        return output
