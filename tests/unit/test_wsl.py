"""/etc/wsl.conf."""

import pytest

from llmhost.system.wsl import with_systemd


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[boot]\nsystemd=true\n"),
        ("[user]\ndefault=kim", "[user]\ndefault=kim\n[boot]\nsystemd=true\n"),
        ("[boot]\nsystemd=false\ncommand=x\n", "[boot]\nsystemd=true\ncommand=x\n"),
        ("[Boot]\n systemd = false\n[user]\n", "[Boot]\nsystemd=true\n[user]\n"),
        ("# ours\n[network]\n", "# ours\n[network]\n[boot]\nsystemd=true\n"),
    ],
)
def test_systemd_is_switched_on_and_the_rest_kept(before: str, after: str) -> None:
    assert with_systemd(before) == after
    assert with_systemd(after) == after
