"""Every command says what it does, with an example; every option says what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from sipserver.cli.main import main


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(main)
    waiting: list[tuple[str, click.Command]] = [("sipserver", main)]
    while waiting:
        path, command = waiting.pop()
        yield path, command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                waiting.append((f"{path} {name}", found))


ALL = sorted(commands(), key=lambda each: each[0])
PATHS = [path for path, _ in ALL]


def test_the_fixed_commands_are_there() -> None:
    assert {
        "sipserver serve", "sipserver check",
        "sipserver subscribers add", "sipserver subscribers list", "sipserver subscribers show",
        "sipserver subscribers passwd", "sipserver subscribers disable", "sipserver subscribers enable",
        "sipserver subscribers remove", "sipserver subscribers import",
        "sipserver bindings list", "sipserver bindings remove",
        "sipserver calls list", "sipserver calls show", "sipserver calls follow",
    } <= set(PATHS)  # fmt: skip


@pytest.mark.parametrize(("path", "command"), ALL, ids=PATHS)
def test_command_says_what_it_does_with_an_example(path: str, command: click.Command) -> None:
    assert command.help
    assert "Example:" in command.help
    assert f"{path} " in command.help.split("Example:")[1], "the example is of this command"
    assert command.get_short_help_str(200).endswith((".", "!", "?"))


@pytest.mark.parametrize(("path", "command"), ALL, ids=PATHS)
def test_option_says_what_it_is_for(path: str, command: click.Command) -> None:
    for parameter in command.get_params(click.Context(command)):
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]}"
            assert parameter.help.endswith("."), f"{path} {parameter.opts[0]}"
        else:
            assert parameter.make_metavar(click.Context(command)) in (command.help or ""), f"{path} {parameter.name}"


@pytest.mark.parametrize(("path", "command"), ALL, ids=PATHS)
def test_listing_has_json_and_csv(path: str, command: click.Command) -> None:
    if path.rsplit(maxsplit=1)[-1] in ("list", "show", "check"):
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--csv"} <= options


@pytest.mark.parametrize("path", PATHS)
def test_help_is_printed(path: str) -> None:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
