"""The root group of an episode store: what its attributes say, and which specs it can hold."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopdit.datasets.episode import ACTION
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.zarr_files import METADATA
from loopdit.errors import StoreError

FORMAT = "loopdit-episodes"
FORMAT_VERSION = 1


def root_attributes(spec: PolicySpec, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What `read_root` reads back."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": spec.to_dict(),
        "provenance": dict(provenance),
    }


def read_root(root: Path) -> dict[str, Any]:
    """The attributes of a store's root group, with every key that version 1 has."""
    if not root.exists():
        raise StoreError(
            f"there is no episode store at {root}. Check the path, or record one: policy-collect."
        )
    try:
        attributes: Any = json.loads((root / METADATA).read_bytes()).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        attributes = {}
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise StoreError(
            f"{root} is not an episode store: its {METADATA} does not say format {FORMAT!r}. "
            f"Check the path, or record a store: policy-collect."
        )
    if attributes.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{root} has format version {attributes.get('format_version')}; this loopdit reads "
            f"version {FORMAT_VERSION}. Use the loopdit that wrote it, or record it again."
        )
    missing = [key for key in ("spec", "provenance") if key not in attributes]
    if missing:
        raise StoreError(
            f"{root / METADATA} lacks the attribute {missing[0]!r}. Restore that file."
        )
    return attributes


def check_names(spec: PolicySpec) -> None:
    """Each tensor is a folder beside the folder of the actions; raise StoreError if it cannot."""
    names = [tensor.name for tensor in spec.observations]
    for name in names:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        if not plain or name in (ACTION, METADATA) or names.count(name) > 1:
            raise StoreError(
                f"the observation {name!r} cannot be stored under that name. Use letters, digits, "
                f"'_', '-' and '.', each name once, and not {ACTION!r}."
            )
