"""The shell of every `policy-*` command: Hydra configuration in, one clear line out on a mistake.

A command is a frozen dataclass (its options, their defaults, their help) and a function that takes
it. `run_command` composes the dataclass from `configs/<command>/config.yaml`, an optional
`recipe=`, and the command line, and turns the errors that a user can mend into one line and exit
status 1. `LOOPDIT_TRACEBACK=1` shows where such an error was raised.

Names and forms are checked here before Hydra sees them: its own errors speak of structs, groups
and grammar, and are right only for somebody who knows it.
"""

import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar, cast

from loopdit.command_help import Option, help_text, options_of, recipes_of
from loopdit.errors import ConfigError, LoopditError

T = TypeVar("T")

# Hydra's own side effects, off: commands say where they write, and write nothing else.
_QUIET_HYDRA = (
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)
_MULTIRUN = ("-m", "--multirun")


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and the sentence `--help` shows for it.

    The default "???" makes it an option that must be given.
    """
    metadata = {"help": help}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    if is_dataclass(default):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def require_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raise ConfigError unless the option `name` has one of the values that it may have."""
    if value not in known:
        *most, last = known
        raise ConfigError(f"{name}={value} is unknown. Use {', '.join(most)} or {last}.")


def require_effect(options: Any, names: Sequence[str], needs: str, prefix: str = "") -> None:
    """Raise ConfigError where one of the fields `names` of the dataclass `options` was changed from
    its default though it does nothing there: `needs` is what it would take. `prefix` is what the
    option's name begins with."""
    for entry in fields(options):
        if entry.name not in names:
            continue
        made = entry.default_factory
        default = entry.default if made is MISSING else made()
        value = getattr(options, entry.name)
        if value != default:
            if is_dataclass(value):
                require_effect(
                    value, [f.name for f in fields(value)], needs, f"{prefix}{entry.name}."
                )
            said = str(value).lower() if isinstance(value, bool) else value
            raise ConfigError(
                f"{prefix}{entry.name}={said} does nothing without {needs}. Give that, too, or "
                f"leave {prefix}{entry.name} out."
            )


@dataclass(frozen=True)
class Command:
    """What `--help` says and where the YAML lies (`configs/<folder>/config.yaml`)."""

    name: str
    folder: str
    summary: str
    examples: Sequence[str]


def run_command(command: Command, config: type[T], run: Callable[[T], object]) -> None:
    """Compose `config` from YAML and sys.argv, call `run` with it, exit 1 on a user's mistake."""
    given = sys.argv[1:]
    if any(flag in given for flag in ("--help", "-h")):
        sys.stdout.write(
            help_text(command.name, command.summary, command.examples, command.folder, config)
        )
        return
    overrides = [argument for argument in given if argument not in _MULTIRUN]
    options = options_of(config)
    try:
        _check_names(overrides, options, recipes_of(command.folder))
        _register_schema(config)
        try:
            if len(overrides) < len(given):
                _run_each(command, run, overrides)
                return
            settings = cast(T, _compose(command, overrides))
        except _composition_errors() as error:
            raise ConfigError(_explain(error, options, overrides)) from error
        run(settings)
    except LoopditError as error:
        _fail(command, str(error))
    except KeyboardInterrupt:
        sys.stderr.write(f"{command.name}: stopped.\n")
        sys.exit(130)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        sys.exit(141)  # what a shell says of a program that SIGPIPE ended


def settings_of(config: type[T], wanted: Mapping[str, Any]) -> T:
    """`config` with `wanted`, options in nested mappings, laid over its defaults.

    Raises ConfigError for an option that there is not, or a value that it cannot have.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema = OmegaConf.structured(config)
    _make_writable(schema)
    try:
        return cast(T, _to_settings(OmegaConf.merge(schema, OmegaConf.create(dict(wanted)))))
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{where}{_first_line(error)}.") from error


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed, as `| head` does; it is then given up."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    return True


def _check_names(overrides: Sequence[str], options: Sequence[Option], recipes: list[str]) -> None:
    """Raise ConfigError for the first argument that names no option or recipe."""
    names = ["recipe", *(entry.name for entry in options)]
    groups = {name.rpartition(".")[0] for name in names if "." in name}
    listed = f"The options are: {', '.join(names)}."
    for argument in overrides:
        key, equals, value = argument.partition("=")
        if key.lstrip("+~").startswith(("hydra.", "hydra/")):
            continue
        if argument.startswith("-"):
            meant = key.lstrip("-").replace("-", "_")
            hint = f" Options have no dashes: {meant}={value or '...'}" if meant in names else ""
            raise ConfigError(
                f"unknown flag {argument!r}. The flags are: --help, --multirun (-m).{hint}"
            )
        if not equals:
            raise ConfigError(f"{argument!r} is not written name=value. {listed}")
        if key not in names and key not in groups:
            near = get_close_matches(key, names, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"unknown option {key!r}.{hint} {listed}")
        unknown = [name for name in value.split(",") if name not in (*recipes, "null")]
        if key == "recipe" and unknown:
            have = f"There are: {', '.join(recipes)}." if recipes else "This command has none."
            raise ConfigError(f"no recipe is named {unknown[0]!r}. {have}")


def _register_schema(config: type[Any]) -> None:
    # Imported here, as below, so that --help answers at once.
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(config)
    _make_writable(schema)
    ConfigStore.instance().store(name="schema", node=schema)


def _make_writable(node: Any) -> None:
    """Undo OmegaConf's reading of `frozen`: it would refuse the command line's values too."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, None)
    for key in node:
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            _make_writable(node[key])


def _compose(command: Command, overrides: Sequence[str]) -> Any:
    """The settings of one run. Hydra only composes here: the run itself is a plain call."""
    from hydra import compose, initialize_config_module

    for argument in overrides:
        _require_one_value(argument)
    with initialize_config_module(f"loopdit.configs.{command.folder}", version_base="1.3"):
        return _to_settings(compose("config", overrides=list(overrides)))


def _require_one_value(argument: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = argument.partition("=")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        quoted = f"""'{key}="{value}"'"""
        raise ConfigError(
            f"cannot read {argument!r}: {_first_line(error)}. If it is one piece of text, "
            f"write it in two pairs of quotes: {quoted}."
        ) from error
    if override.is_sweep_override():
        raise ConfigError(
            f"{argument} is more than one value. Write {key}=[{value}] for a list, or add -m to "
            f"run once with each."
        )


def _run_each(command: Command, run: Callable[[T], object], overrides: Sequence[str]) -> None:
    """`run` once for each combination of the swept values, by Hydra's sweeper and launcher."""
    import hydra
    from omegaconf import DictConfig

    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us; we print one line ourselves
    original = sys.argv[:]

    def task(composed: DictConfig) -> None:
        sys.argv[:] = original  # what the user typed, for whoever records it
        run(_to_settings(composed))

    main = hydra.main(
        version_base="1.3",
        config_path=f"pkg://loopdit.configs.{command.folder}",
        config_name="config",
    )(task)
    with TemporaryDirectory(prefix="loopdit-multirun-") as folder:
        sweep = f"hydra.sweep.dir='{folder}'"
        # The flag goes first: argparse takes positional arguments in one piece only.
        sys.argv[1:] = ["--multirun", *_QUIET_HYDRA, sweep, *overrides]
        try:
            main()
        finally:
            sys.argv[:] = original


def _to_settings(composed: Any) -> Any:
    """The dataclass itself; its `__post_init__` may refuse with ConfigError or ValueError."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_object(composed)
    except LoopditError:
        raise
    except ValueError as error:
        if isinstance(error, _composition_errors()):
            raise
        raise ConfigError(str(error)) from error


def _composition_errors() -> tuple[type[Exception], ...]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return HydraException, OmegaConfBaseException


def _explain(error: Exception, options: Sequence[Option], overrides: Sequence[str]) -> str:
    """One sentence about a value that Hydra or OmegaConf refused."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    reason = _first_line(error)
    key = str(getattr(error, "full_key", None) or "").partition("[")[0]
    if "missing mandatory value" in reason:
        missing = reason.rpartition(": ")[2]
        return f"{missing} has no default: give {missing}=VALUE."
    if "hydra/launcher" in reason:
        reason = (
            f"{reason.partition(': ')[2]}. joblib, ray, submitit_local and submitit_slurm come "
            f"with: pip install 'loopdit[sweeps]'"
        )
    if "is not a ListConfig" in reason:
        value = next((o.partition("=")[2] for o in overrides if o.partition("=")[0] == key), "...")
        reason = f"it takes a list: write {key}=[{value}]"
    default = next((f" The default is {o.name}={o.default}." for o in options if o.name == key), "")
    typed = next((o for o in overrides if o.partition("=")[0] == key), key)
    if typed:
        return f"{typed}: {reason}.{default}"
    return f"{reason} (in {' '.join(overrides)!r}; see --help)."


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__).rstrip(".")


def _fail(command: Command, message: str) -> NoReturn:
    """Print one line (and the traceback when asked for) and exit 1."""
    if os.environ.get("LOOPDIT_TRACEBACK") == "1":
        traceback.print_exc()
    sys.stderr.write(f"{command.name}: error: {' '.join(message.split())}\n")
    sys.exit(1)
