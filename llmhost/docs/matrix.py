"""Write docs/nvidia-matrix.md from the code that chooses drivers; script/docs calls it."""

from collections.abc import Iterable, Iterator

from llmhost.nvidia.data import MATRIX
from llmhost.nvidia.matrix import (
    Row,
    branch_rows,
    cuda_rows,
    generation_rows,
    offer_rows,
    rows,
)

_HEAD = f"""\
# Which driver a host gets

`script/docs` generates this page from the code that chooses drivers. The figures were checked on
{MATRIX.checked}; `files/nvidia_driver/matrix.toml` names their sources. `llmhost nvidia` prints the
same tables and their age. For anything newer, `plan` warns and says what it assumes.

## Drivers

The source in bold is that of `nvidia_driver_source = "auto"`. Other options have their defaults,
the kernel is the generic one of the release, and there is no NVSwitch.
"""


def matrix() -> str:
    """A page of Markdown."""
    bulletin = MATRIX.bulletin
    named = f"NVIDIA's [bulletin {bulletin.number}]({bulletin.url}) of {bulletin.published}"
    sections = [
        _HEAD,
        _table(("release", "GPUs", "source", "branch, module", "packages"), _driver_rows()),
        "\n## Branches\n",
        f"Security floors are those of {named}.\n",
        _table(("branch", "kind", "security fixes until", "floor"), branch_rows(MATRIX.checked)),
        "\n## Where they are offered\n",
        _table(("release", "its own packages", "NVIDIA's repository"), offer_rows()),
        "\n## CUDA\n",
        _table(("CUDA", "driver of its toolkit", "oldest branch that runs it"), cuda_rows()),
        "\n## GPUs\n",
        _table(("generation", "first branch", "last branch", "module"), generation_rows()),
    ]
    return "\n".join(sections) + "\n"


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    found = [head, ("---",) * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in found)


def _driver_rows() -> Iterator[tuple[str, ...]]:
    for row in rows(MATRIX.checked):
        source = f"**{row.source}**" if row.default else row.source
        yield (row.release, row.gpus, source, *_answer(row))


def _answer(row: Row) -> tuple[str, str]:
    if row.choice is None:
        return "refused", row.refusal
    listed = ", ".join(f"`{name}`" for name in row.packages)
    return f"{row.choice.branch}, {row.choice.module}", listed


if __name__ == "__main__":
    print(matrix(), end="")
