"""Mappings as YAML files and as plain JSON: read with clear refusals, written to be read again.

A ready one is named (`mapping=bridge`), a user's own is a path ending in .yaml. Every field is one
of `DataMapping` or `VectorPart`; a single key, number or text may stand for a list of one.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import ConfigError

_NUMBERS = ("columns", "scale", "offset", "low", "high")
_KEYS = ("instruction", "success", "seed", "drop")
_TEXTS = ("action_frame", "convention")
_LARGEST = 1e30  # far from where float32 ends
_CONVENTIONS = ("", "delta", "absolute")


def ready_mappings() -> list[str]:
    """The names of the mappings that come with loopdit."""
    folder = resources.files("loopdit.datasets") / "mappings"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_mapping(name: str) -> DataMapping:
    """A ready mapping by name, or a file. Raises ConfigError for one that is missing or wrong."""
    import yaml

    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        where = str(file)
    elif name in ready_mappings():
        file = resources.files("loopdit.datasets") / "mappings" / f"{name}.yaml"
        where = f"mapping {name}"
    else:
        raise ConfigError(
            f"mapping={name} is unknown. Choose one of {', '.join(ready_mappings())}, "
            f"or give the path of a .yaml file."
        )
    try:
        data: Any = yaml.load(file.read_text(encoding="utf-8"), _loader())
    except OSError as error:
        raise ConfigError(f"cannot read {where}: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is no text in UTF-8. Check the path.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    mapping = mapping_from_dict(data, where)
    for name, parts in (("proprio", mapping.proprio), ("action", mapping.action)):
        labels = [label for part in parts for label in part.labels]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ConfigError(f"{where}, {name} has the label {twice!r} twice. Rename one of them.")
    return mapping


def mapping_to_dict(mapping: DataMapping) -> dict[str, Any]:
    """Plain JSON types without empty fields; `mapping_from_dict` reads it back."""
    return _plain(asdict(mapping))


def mapping_from_dict(data: Any, where: str) -> DataMapping:
    """Read a mapping's fields. Raises ConfigError naming `where` and the field that is wrong."""
    given = _table(data, where)
    _refuse_unknown(given, [field.name for field in fields(DataMapping)], where)
    values: dict[str, Any] = {
        "cameras": {
            str(name): _strings(keys, f"{where}, camera {name!r}")
            for name, keys in _table(given.get("cameras", {}), f"{where}, cameras").items()
        },
        "rate_hz": _number(given.get("rate_hz", 0.0), f"{where}, rate_hz"),
    }
    for name in ("proprio", "action"):
        parts = given.get(name)
        if not parts:
            raise ConfigError(f"{where} lacks {name!r}: say which keys it is made of.")
        listed: list[Any] = parts if isinstance(parts, list) else [parts]
        values[name] = tuple(
            _part(part, f"{where}, {name} part {number}") for number, part in enumerate(listed)
        )
    for name in _KEYS:
        values[name] = _strings(given.get(name, []), f"{where}, {name}")
    for name in _TEXTS:
        values[name] = given.get(name, "")
        if not isinstance(values[name], str):
            raise ConfigError(f"{where}, {name} is {values[name]!r:.60}, no text. Quote it.")
    if values["convention"] not in _CONVENTIONS:
        raise ConfigError(
            f"{where}, convention is {values['convention']!r}. Say delta or absolute."
        )
    if values["rate_hz"] < 0:
        raise ConfigError(f"{where}, rate_hz is {values['rate_hz']}. Give control steps a second.")
    return DataMapping(**values)


def _part(data: Any, where: str) -> VectorPart:
    if isinstance(data, str):  # a key alone
        return VectorPart((data,))
    given = _table(data, where)
    _refuse_unknown(given, [field.name for field in fields(VectorPart)], where)
    if not given.get("keys"):
        raise ConfigError(f"{where} lacks 'keys': say where it comes from.")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _NUMBERS:
            values[name] = _strings(value, f"{where}, {name}")
            continue
        listed: list[Any] = value if isinstance(value, list) else [value]
        numbers = [_number(item, f"{where}, {name}") for item in listed]
        if name == "columns":
            if not all(n.is_integer() for n in numbers):
                raise ConfigError(f"{where}, columns are {listed!r:.60}. Give whole numbers.")
            values[name] = tuple(int(n) for n in numbers)
        else:
            values[name] = tuple(numbers)
    if 0.0 in values.get("scale", ()):
        raise ConfigError(f"{where}, scale has a 0, which cannot be undone. Give another number.")
    for low, high in zip(values.get("low", ()), values.get("high", ()), strict=False):
        if low > high:
            raise ConfigError(f"{where}, low {low:g} is above high {high:g}. Correct one of them.")
    return VectorPart(**values)


def _table(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is {data!r:.60}, not a list of 'name: value' lines.")
    return data


def _refuse_unknown(given: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{where} has the unknown field {name!r}. Known are: {', '.join(known)}."
            )


def _strings(value: Any, where: str) -> tuple[str, ...]:
    listed: list[Any] = value if isinstance(value, list) else [value]
    for item in listed:
        if not isinstance(item, str):
            raise ConfigError(f"{where} has {item!r:.60} where a text is needed. Quote it.")
    return tuple(listed)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} has {value!r:.60} where a number is needed.")
    if not abs(value) <= _LARGEST:
        raise ConfigError(f"{where} has {value!r:.60}. Give a finite number, up to {_LARGEST:g}.")
    return float(value)


def _loader() -> Any:
    """YAML's safe loader, which in a file with a name twice would take the last without a word."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            for key, _ in node.value:
                if names.count(key.value) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the name {key.value!r} stands there twice", key.start_mark
                    )
            return super().construct_mapping(node, deep)

    return Loader


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item not in ((), "", 0.0, {})}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
