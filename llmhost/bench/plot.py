"""The plot of `llmhost bench`, as PNG. Needs matplotlib: the extra `llmhost[plot]`."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmhost.bench.report import BenchReport, Level
from llmhost.system.whole_file import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "--plot needs matplotlib; install it with: pip install 'llmhost[plot]'"
_PLOTS = (
    ("tokens_per_second", "tokens per second", 1),
    ("first_token_p95_seconds", "first token, p95, in ms", 1000),
    ("between_tokens_p95_seconds", "between two tokens, p95, in ms", 1000),
)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def plot(report: BenchReport, before: BenchReport | None, file: Path) -> None:
    """Write the figures of each model over the number of concurrent clients. Earlier figures are
    dashed. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, len(_PLOTS))
    models = list(dict.fromkeys(level.model for level in report.levels))
    for axis, (name, label, scale) in zip(axes, _PLOTS, strict=True):
        for number, model in enumerate(models):
            color = f"C{number}"
            _line(axis, report.levels, (name, scale), model, color=color, marker="o", label=model)
            if before:
                style: dict[str, Any] = {"color": color, "linestyle": "--", "alpha": 0.6}
                _line(axis, before.levels, (name, scale), model, label=f"{model}, before", **style)
        axis.set_xlabel("concurrent clients")
        axis.set_title(label, fontsize="medium")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize="small")
    sizes = f"{report.prompt_words} words in, up to {report.max_tokens} tokens out"
    figure.suptitle(f"{report.host}, {report.time}: {sizes}", fontsize="medium")
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_file(file, drawn.getvalue())


def _line(
    axis: "Axes", levels: Sequence[Level], value: tuple[str, float], model: str, **style: Any
) -> None:
    name, scale = value
    points = [
        (each.concurrency, scale * getattr(each, name))
        for each in levels
        if each.model == model and getattr(each, name) is not None
    ]
    if points:
        axis.plot(*zip(*sorted(points), strict=True), **style)
