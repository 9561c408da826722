"""How a plan ends, and how a server is reached."""

from pathlib import Path

import pytest

from llmhost.cli.plan import HostPlan, exit_status
from llmhost.cli.ssh import ssh_config


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["converged"], 0),
        (["converged", "drift"], 2),
        (["drift", "refused"], 1),
        (["converged", "unreachable"], 1),
        (["failed"], 1),
    ],
)
def test_worst_host_decides_the_exit_status(statuses: list[str], status: int) -> None:
    assert exit_status([HostPlan("host", each) for each in statuses]) == status


def test_inventory_data_goes_before_the_ssh_config_it_names(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("Host *\n  Port 2222\n")
    data = {"ssh_hostname": "192.0.2.1", "ssh_user": "admin", "ssh_config_file": str(own)}
    lines = ssh_config("llm", data, tmp_path).splitlines()
    assert lines[0] == "Host llm"
    assert lines.index("  HostName 192.0.2.1") < lines.index(f"Include {own}")
    assert "  Port 22" not in lines
