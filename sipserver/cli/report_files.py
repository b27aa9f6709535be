"""What ``sipserver report`` shows besides tables: plots on the terminal, and pictures and pages in files."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from sipserver.analysis.drawings import Frame, charts
from sipserver.analysis.report import Rows
from sipserver.cli import plots
from sipserver.cli.output import Command
from sipserver.cli.refusal import Refusal

EXTRA: Final = "pip install 'sipserver[analysis]'"
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@dataclass(slots=True, frozen=True)
class Wanted:
    """What was asked for besides tables."""

    plot: bool | None = None
    """None: where standard output is a terminal and plots can be drawn."""
    png: Path | None = None
    svg: Path | None = None

    @property
    def files(self) -> bool:
        """Whether files are written, and nothing printed but that."""
        return any((self.png, self.svg))

    @property
    def plotted(self) -> bool:
        """Whether plots are shown; refuses to where they were asked for and cannot be."""
        if self.plot is None:
            return plots.on_terminal() and plots.can_plot()
        if self.plot and not plots.can_plot():
            raise Refusal(f"plots need plotext: {EXTRA}")
        return self.plot


def file_options(command: Command) -> Command:
    """Gives a command the options of ``Wanted``, as the parameter ``wanted``."""

    @functools.wraps(command)
    def run(*args: Any, plot: bool | None, png: Path | None, svg: Path | None, **options: Any) -> Any:
        return command(*args, wanted=Wanted(plot, png, svg), **options)

    wrapped: Command = run
    for option in reversed((
        click.option("--plot/--no-plot", default=None,
            help="Plots beside the tables. Default: on a terminal, where plotext is installed."),
        click.option("--png", metavar="FILE", type=_FILE, help="Write the charts as a picture."),
        click.option("--svg", metavar="FILE", type=_FILE, help="Write the charts as a drawing."),
    )):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped


def show_plots(name: str, found: Mapping[str, Rows], frame: Frame) -> None:
    """Print the charts of a report."""
    drawn = charts(name, found, frame)
    if drawn:
        width = shutil.get_terminal_size().columns
        click.echo(f"\n{plots.plots(drawn, width, colours=plots.coloured())}")


def write_files(wanted: Wanted, name: str, found: Mapping[str, Rows], frame: Frame, heading: tuple[str, str]) -> None:
    """Write the files that were asked for, and say so."""
    if wanted.png is not None or wanted.svg is not None:
        drawn = charts(name, found, frame)
        if not drawn:
            raise Refusal("this part has no charts")
        pictures = _pictures()
        if wanted.png is not None:
            _write(wanted.png, lambda: pictures.png(drawn, heading=heading))
        if wanted.svg is not None:
            _write(wanted.svg, lambda: pictures.svg(drawn, heading=heading).encode())


def _pictures() -> Any:
    try:
        # Heavy, and only who wants a picture needs what draws it.
        from sipserver.analysis import pictures  # noqa: PLC0415
    except ImportError as error:
        raise Refusal(f"pictures need altair and vl-convert: {EXTRA}") from error
    return pictures


def _write(path: Path, make: Callable[[], bytes]) -> None:
    try:
        path.write_bytes(make())
    except OSError as error:
        raise Refusal(f"cannot write {path}: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)
