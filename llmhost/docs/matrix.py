"""Write docs/nvidia-matrix.md from the code that chooses drivers; script/docs calls it."""

from collections.abc import Iterator

from llmhost.nvidia.driver import RELEASES, Source, Unsatisfiable, Wish, choose
from llmhost.nvidia.generation import Generation
from llmhost.nvidia.packages import Kernel, packages

_GROUPS = {
    "Maxwell, Pascal, Volta": (Generation.MAXWELL, Generation.PASCAL, Generation.VOLTA),
    "Turing, Ampere, Ada, Hopper": (
        *(Generation.TURING, Generation.AMPERE, Generation.ADA, Generation.HOPPER),
    ),
    "Blackwell": (Generation.BLACKWELL,),
    "newer": (Generation.NEWER,),
}
_SOURCES: tuple[Source, ...] = ("distribution", "nvidia")
_KERNELS = {
    "ubuntu": Kernel("6.8.0-85-generic", ("linux-image-generic",)),
    "debian": Kernel("6.12.48+deb13-amd64", ("linux-image-amd64",)),
}
_HEAD = (
    "# Which driver a host gets",
    "",
    "`script/docs` generates this page from the code that chooses drivers. The source in bold is",
    'that of `nvidia_driver_source = "auto"`. Other options have their defaults, the kernel is the',
    "generic one of the release, and there is no NVSwitch.",
    "",
    "| release | GPUs | source | branch, module | packages |",
    "| --- | --- | --- | --- | --- |",
)


def matrix() -> str:
    """A page of Markdown."""
    return "\n".join([*_HEAD, *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    for release in RELEASES:
        default = choose(Wish(), release, [Generation.ADA]).source
        for group, generations in _GROUPS.items():
            for source in _SOURCES:
                name = f"**{source}**" if source == default else source
                answer = _answer(release, generations, source)
                yield f"| {release} | {group} | {name} | {answer} |"


def _answer(release: str, generations: tuple[Generation, ...], source: Source) -> str:
    try:
        choice = choose(Wish(source=source), release, generations)
    except Unsatisfiable as error:
        return f"refused | {error.sentences[0]}"
    kernel = _KERNELS[release.partition("-")[0]]
    names = packages(choice, release, kernel, nvswitch=False).all
    listed = ", ".join(f"`{name}`" for name in names)
    return f"{choice.branch}, {choice.module} | {listed}"


if __name__ == "__main__":
    print(matrix(), end="")
