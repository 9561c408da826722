"""`--plot PNG`: whether a plot can be drawn and written."""

from pathlib import Path

from llmhost.bench.plot import MISSING, can_plot
from llmhost.cli.errors import check_writable, stop


def check_plot(file: Path) -> None:
    """Stop, before the work that it shows, if a plot could not be written."""
    if file.suffix.lower() != ".png":
        stop(f"--plot {file} is not a PNG file; write a name such as {file.stem}.png")
    check_writable(file)
    if not can_plot():
        stop(MISSING)
