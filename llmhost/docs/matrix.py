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

Written by `script/docs` from the code that chooses. The figures were checked on {MATRIX.checked};
their sources are in `files/nvidia_driver/matrix.toml`. `llmhost nvidia` shows the same, with its
age. Whatever is newer gets a warning that says what is assumed.

## Drivers

The source in bold is the one that `nvidia_driver_source = "auto"` takes. Everything else is at its
default, the kernel is the release's generic one, and there is no NVSwitch.
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
