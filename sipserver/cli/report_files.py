"""What ``sipserver report`` shows besides tables: plots on the terminal, and pictures and pages in files."""

from __future__ import annotations

import functools
import importlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from sipserver import __version__
from sipserver.analysis.drawings import TITLES, Frame, charts
from sipserver.analysis.report import Rows
from sipserver.cli import plots
from sipserver.cli.output import Command, plain
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
    html: Path | None = None
    parquet: Path | None = None

    @property
    def files(self) -> bool:
        """Whether files are written, and nothing printed but that."""
        return any((self.png, self.svg, self.html, self.parquet))

    @property
    def charts(self) -> bool:
        """Whether any of the files has charts."""
        return any((self.png, self.svg, self.html))

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
    def run(
        *args: Any, plot: bool | None, png: Path | None, svg: Path | None, html: Path | None, parquet: Path | None,
        **options: Any,
    ) -> Any:  # fmt: skip
        return command(*args, wanted=Wanted(plot, png, svg, html, parquet), **options)

    wrapped: Command = run
    for option in reversed((
        click.option("--plot/--no-plot", default=None,
            help="Plots beside the tables. Default: on a terminal, where plotext is installed."),
        click.option("--png", metavar="FILE", type=_FILE, help="Write the charts as a picture."),
        click.option("--svg", metavar="FILE", type=_FILE, help="Write the charts as a drawing."),
        click.option("--html", metavar="FILE", type=_FILE,
            help="Write one page with the charts and tables, which loads nothing and can be mailed."),
        click.option("--parquet", metavar="FILE", type=_FILE,
            help="Write the part that --part names, or each part, with its name at the end of the file's."),
    )):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped


def show_plots(name: str, found: Mapping[str, Rows], frame: Frame) -> None:
    """Print the charts of a report."""
    drawn = charts(name, found, frame)
    if drawn:
        width = shutil.get_terminal_size().columns
        click.echo(f"\n{plots.plots(drawn, width, colours=plots.coloured())}")


def write_files(
    wanted: Wanted, name: str, found: Mapping[str, Rows], lent: Mapping[str, Rows], frame: Frame, store: Path
) -> None:  # fmt: skip
    """Write the files that were asked for, and say so. ``lent`` are parts of other reports, for the charts."""
    if wanted.png is not None or wanted.svg is not None:
        drawn = charts(name, {**found, **lent}, frame)
        if not drawn:
            raise Refusal(f"part {next(iter(found))} has no chart")
        pictures = _drawing("pictures")
        heading = TITLES[name], _about(frame)
        if wanted.png is not None:
            _write(wanted.png, lambda: pictures.png(drawn, heading=heading))
        if wanted.svg is not None:
            _write(wanted.svg, lambda: pictures.svg(drawn, heading=heading).encode())
    if wanted.html is not None:
        made = f"{datetime.now(frame.asked.where):%Y-%m-%d %H:%M} by sipserver {__version__}"
        page = _drawing("page").page
        _write(wanted.html, lambda: page(name, found, lent, frame, store=str(store), made=made).encode())

    if wanted.parquet is not None:
        write = _module("parquet", "Parquet needs pyarrow").write
        for part, rows in found.items():
            path = wanted.parquet
            if len(found) > 1:
                path = path.with_name(f"{path.stem}-{part}{path.suffix}")
            _write(path, functools.partial(write, part, rows, frame))


def _about(frame: Frame) -> str:
    """What a picture is about."""
    asked = frame.asked
    begin, end = (datetime.fromtimestamp(at / 1000, asked.where) for at in (asked.begin, asked.end))
    said = [f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {frame.zone}", f"by {asked.by}"]
    return ", ".join(said + [f"{what} {plain(text)}" for what, text in asked.kpis.parameters.items()])


def _drawing(module: str) -> Any:
    return _module(module, "pictures need altair and vl-convert")


def _module(name: str, needs: str) -> Any:
    """A module that is heavy, so that only who wants what it makes pays for it, or needs what is not installed."""
    try:
        return importlib.import_module(f"sipserver.analysis.{name}")
    except ImportError as error:
        raise Refusal(f"{needs}: {EXTRA}") from error


def _write(path: Path, make: Callable[[], bytes]) -> None:
    try:
        path.write_bytes(make())
    except OSError as error:
        raise Refusal(f"cannot write {path}: {error.strerror or error}") from error
    click.echo(f"wrote {path}", err=True)
