"""A graft on disk: what was trained alone (the delta), or with all that it was grafted on (whole).

Both are one safetensors file, whose header says which transformer and which graft it is of. A delta
is small: 1.4 MB for three loops of a frozen CogVideoX-2B with the paper's head. It goes onto
another copy of the same transformer; one of another size, or of other loops, is refused by what
differs.

    delta/<name>       what is trained, by its name in the grafted transformer
    decoder/<name>     of the action decoder, where there is one
    base/<name>        whole files alone: every parameter of the transformer before it was grafted
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loopdit.errors import CheckpointError, LoopditError
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import Graft, graft
from loopdit.whole_file import whole_file

FORMAT, VERSION = "loopdit-graft", "1"
DELTA, DECODER, BASE = "delta/", "decoder/", "base/"

# What weights depend on. The rest of a transformer's configuration only says how it is used.
_SIZES = (
    *("num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels"),
    *("patch_size", "time_embed_dim", "text_embed_dim", "use_rotary_positional_embeddings"),
)
_FREE = ("halt_at", "ponder")  # options that a delta can be used with other values of


def save_delta(path: Path, grafted: Graft, decoder: nn.Module | None = None) -> None:
    """Write what was trained. Raises CheckpointError where the disk refuses."""
    _write(path, grafted, _delta(grafted, decoder))


def save_whole(path: Path, grafted: Graft, decoder: nn.Module | None = None) -> None:
    """Like `save_delta`, with the transformer that it was grafted on."""
    base = {BASE + name: value for name, value in grafted.base().items()}
    _write(path, grafted, _delta(grafted, decoder) | base)


def load_delta(path: Path, grafted: Graft, decoder: nn.Module | None = None) -> None:
    """Put a saved delta, or that of a whole file, onto `grafted` and its decoder.

    Raises CheckpointError, naming what differs, for one of another transformer or another graft;
    nothing is changed then.
    """
    tensors, said = _read(path, (DELTA, DECODER))
    _require_same(path, "transformer", said["transformer"], transformer_sizes(grafted.transformer))
    wanted = {k: v for k, v in asdict(grafted.config).items() if k not in _FREE}
    _require_same(path, "graft", said["graft"], wanted)
    places = [(DELTA, grafted.trained())]
    if decoder is not None:
        places.append((DECODER, dict(decoder.named_parameters())))
    for prefix, own in places:
        _require_shapes(path, prefix, tensors, own)
    with torch.no_grad():
        for prefix, own in places:
            for name, parameter in own.items():
                parameter.copy_(tensors[prefix + name])


def load_whole(path: Path) -> Graft:
    """The graft of a whole file, on the CPU; its `unloop` gives back what it was grafted on.

    Raises CheckpointError.
    """
    tensors, said = _read(path, (BASE,))
    if not tensors:
        raise CheckpointError(
            f"{path} is a delta, without the transformer that it was grafted on. Graft that one, "
            f"and put the delta onto it."
        )
    try:
        transformer = CogVideoXTransformer3DModel(**said["config"]).eval()
        transformer.load_state_dict({name[len(BASE) :]: t for name, t in tensors.items()})
        grafted = graft(transformer, GraftConfig(**said["graft"]))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error!s:.300}") from error
    load_delta(path, grafted)
    return grafted


def transformer_sizes(transformer: CogVideoXTransformer3DModel) -> dict[str, Any]:
    """What a delta has to fit, by diffusers' names."""
    return {name: transformer.config[name] for name in _SIZES}


def _delta(grafted: Graft, decoder: nn.Module | None) -> dict[str, Tensor]:
    found = {DELTA + name: value for name, value in grafted.trained().items()}
    if decoder is not None:
        found |= {DECODER + name: value for name, value in decoder.named_parameters()}
    return {name: value.detach() for name, value in found.items()}


def _write(path: Path, grafted: Graft, tensors: Mapping[str, Tensor]) -> None:
    transformer = grafted.transformer
    config = {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "graft": json.dumps(asdict(grafted.config)),
        "transformer": json.dumps(transformer_sizes(transformer)),
        "config": json.dumps(config),
    }
    whole = {name: value.cpu().contiguous() for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            save_file(whole, aside, metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path} ({error}). Free space or choose another place; what was there "
            f"before is intact."
        ) from error


def _read(path: Path, prefixes: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors below these prefixes, and what the header says."""
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
                raise CheckpointError(
                    f"{path} is no graft of loopdit's: it says {header.get('format')!r} version "
                    f"{header.get('version')!r}, not {FORMAT!r} {VERSION!r}."
                )
            said = {name: json.loads(header[name]) for name in ("graft", "transformer", "config")}
            names: list[str] = [n for n in file.keys() if n.startswith(prefixes)]  # noqa: SIM118 - no mapping
            return {name: file.get_tensor(name) for name in names}, said
    except LoopditError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!s:.200}. Copy it again.") from error


def _require_same(path: Path, what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        f"{name}={found.get(name)} (here {value})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to another {what}: {', '.join(differing)}. Use the one it was "
            f"trained with."
        )


def _require_shapes(
    path: Path, prefix: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    for name, parameter in own.items():
        found = tensors.get(prefix + name)
        if found is None or found.shape != parameter.shape:
            shape = "nothing" if found is None else tuple(found.shape)
            raise CheckpointError(
                f"{path} has {shape} for {prefix}{name}, which is {tuple(parameter.shape)} here. "
                f"Use the decoder and the transformer that it was trained with."
            )
