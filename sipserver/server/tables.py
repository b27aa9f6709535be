"""A TOML file into msgspec classes, with every fault of it named instead of the first.

Knows nothing of what the keys mean; ``server.config`` does.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

Tables = dict[str, Any]
StructT = TypeVar("StructT", bound=msgspec.Struct)

_SHOWN: Final = 60
"""Characters of a wrong value that are repeated in the message."""


class TableError(Exception):
    """What is wrong with a file: one sentence for each fault."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read(path: Path) -> Tables:
    """The tables of a TOML file. Raises TableError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TableError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TableError([f"{path}: is not TOML: {error}"]) from error


def convert(tables: Tables, kind: type[StructT], source: str) -> StructT:
    """The tables as this class. Raises TableError with every unknown key and every value that is not allowed."""
    problems = [f"{source}: {fault}" for fault in _faults(tables, _struct(kind), "")]
    if problems:
        raise TableError(problems)
    return msgspec.convert(tables, kind)


def allowed(kind: inspect.Type) -> str:
    """What a value of this type may be, for people."""
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number{_range(low, high)}"
        case inspect.FloatType(gt=above, ge=low, le=high):
            return f"a number{_range(low, high, above)}"
        case inspect.StrType():
            return "text in quotes"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(json.dumps(value) for value in values)
        case inspect.VarTupleType(item_type=item):
            return f"a list, each of it {allowed(item)}"
        case inspect.DictType(value_type=value):
            return f"a table, each value in it {allowed(value)}"
        case inspect.UnionType(types=types):
            return " or ".join(allowed(each) for each in types if not isinstance(each, inspect.NoneType))
        case inspect.StructType(fields=fields):
            return "a table of " + ", ".join(field.encode_name for field in fields)
        case _:
            raise AssertionError(f"no words for {kind}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def shown(value: object) -> str:
    """A value as it may be repeated in a message: escaped and short."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _struct(kind: type[msgspec.Struct]) -> inspect.StructType:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return described


def _range(low: float | None, high: float | None, above: float | None = None) -> str:
    lower = f"above {above:g}" if above is not None else f"from {low}" if low is not None else ""
    upper = f"{'up ' if above is not None or not lower else ''}to {high}" if high is not None else ""
    return "".join(f" {part}" for part in (lower, upper) if part)


def _faults(table: Mapping[str, Any], kind: inspect.StructType, at: str) -> Iterator[str]:
    """What is wrong in this table; ``at`` is its own key with a dot behind it."""
    fields = {field.encode_name: field for field in kind.fields}
    for key, value in table.items():
        field = fields.get(key)
        if field is None:
            yield f"{at}{key}: there is no such key{nearest(key, fields)}; allowed here: {', '.join(sorted(fields))}"
        else:
            yield from _value_faults(value, field.type, at + key)
    for key, field in fields.items():
        if field.required and key not in table:
            yield f"{at}{key}: is missing; wanted is {allowed(field.type)}"


def _value_faults(value: Any, kind: inspect.Type, at: str) -> Iterator[str]:
    kind = _without_none(kind)
    inner = _struct_within(kind)
    if inner is not None and isinstance(value, dict):
        yield from _faults(value, inner, at + ".")
    elif isinstance(value, dict) and isinstance(kind, inspect.DictType):
        for key, item in value.items():
            yield from _value_faults(item, kind.value_type, f"{at}.{shown(key)}")
    elif isinstance(value, list) and (items := _list_within(kind)) is not None:
        for position, item in enumerate(value, 1):
            yield from _value_faults(item, items.item_type, f"{at}[{position}]")
    elif not _fits(value, kind):
        yield f"{at}: {shown(value)} is not allowed; wanted is {allowed(kind)}"


def _without_none(kind: inspect.Type) -> inspect.Type:
    """TOML has no null: a value that may be left out is, when it is there, what else it may be."""
    if isinstance(kind, inspect.UnionType):
        types = tuple(each for each in kind.types if not isinstance(each, inspect.NoneType))
        return types[0] if len(types) == 1 else inspect.UnionType(types)
    return kind


def _struct_within(kind: inspect.Type) -> inspect.StructType | None:
    if isinstance(kind, inspect.UnionType):
        return next((each for each in kind.types if isinstance(each, inspect.StructType)), None)
    return kind if isinstance(kind, inspect.StructType) else None


def _list_within(kind: inspect.Type) -> inspect.VarTupleType | None:
    if isinstance(kind, inspect.UnionType):
        return next((each for each in kind.types if isinstance(each, inspect.VarTupleType)), None)
    return kind if isinstance(kind, inspect.VarTupleType) else None


def _fits(value: Any, kind: inspect.Type) -> bool:
    """Whether a plain value is of a plain type."""
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _in_range(value, kind)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool) and _in_range(value, kind)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.LiteralType(values=values):
            return isinstance(value, str) and value in values
        case inspect.UnionType(types=types):
            return any(_fits(value, each) for each in types)
        case _:
            return False


def _in_range(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    # NaN compares false with everything, so it is in no range.
    return (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
    )
