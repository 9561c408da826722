"""The loss curve of a training, as PNG. Needs matplotlib: the extra `llmhost[plot]`."""

from io import BytesIO
from pathlib import Path

from llmhost.system.whole_file import write_file
from llmhost.training.report import TrainReport


def plot(report: TrainReport, file: Path) -> None:
    """Write the loss over the steps, and that on what was held back. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, label in (("loss", "trained on"), ("held_back_loss", "held back")):
        every = [(each.step, getattr(each, name)) for each in report.steps]
        points = [(step, loss) for step, loss in every if loss is not None]
        if points:
            axis.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3)
    if report.adapter:
        axis.axhline(report.adapter.before, linestyle=":", label="held back, without the adapter")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small")
    axis.set_title(f"{report.job} on {report.host}", fontsize="medium")
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_file(file, drawn.getvalue())
