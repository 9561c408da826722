"""The catalogue of drift: what somebody does on a server by hand, and what `llmhost plan` says.

python -m tests.integration.drift.cases        writes docs/drift.md
"""

from itertools import chain, groupby
from pathlib import Path

from llmhost.checks.catalogue import entries
from llmhost.checks.corrections import correction
from tests.integration.drift.case import Drift
from tests.integration.drift.docker import DOCKER
from tests.integration.drift.egress import EGRESS
from tests.integration.drift.firewall import FIREWALL
from tests.integration.drift.foreign import FOREIGN
from tests.integration.drift.gateway import GATEWAY
from tests.integration.drift.nvidia import NVIDIA
from tests.integration.drift.open_webui import OPEN_WEBUI
from tests.integration.drift.stack import STACK
from tests.integration.drift.system import NETWORK, SYSTEM
from tests.integration.drift.upkeep import HEALING, RECEIPT

PAGE = Path(__file__).parents[3] / "docs" / "drift.md"
MARK = "<!-- From here on written by script/docs. -->\n"

PLAIN: tuple[Drift, ...] = (
    *(*SYSTEM, *NETWORK, *EGRESS, *DOCKER, *FIREWALL),
    *(*GATEWAY, *STACK, *HEALING, *RECEIPT),
)
"""For a server without a GPU."""

CASES = {"plain": PLAIN, "ui": OPEN_WEBUI, "gpu": NVIDIA}
"""By the server that they need: `ui` has Open WebUI, the others are called by their flavour."""


def page() -> str:
    """docs/drift.md with its tables as they have to be."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    lines = [f"{head}{MARK}"]
    for component, of_component in groupby(chain(*CASES.values()), lambda case: case.component):
        lines.append(f"\n## {component}")
        for guard, cases in groupby(of_component, lambda case: case.guard):
            lines.append(f"\nCheck `{guard}`:\n")
            lines += [f"- {case.id}: `{case.sign}`" for case in cases]
    lines.append("\n## Checks and operations\n")
    lines.append("The operation of a deploy that corrects what a check finds:\n")
    lines += [f"- `{check.id}`: {correction(check.id)}" for check in entries()]
    lines.append("\n## Left alone\n")
    lines += [f"- {each.id}" for each in FOREIGN]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
