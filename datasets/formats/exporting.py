"""Our episodes as what a format's writer is given.

Data that came from the same format goes back under its former keys, bit by bit; any other data
goes under the keys that the format's users expect.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loopdit.datasets.episode import Episode
from loopdit.datasets.formats.foreign import Export, ForeignEpisode, Format
from loopdit.datasets.formats.layout import Layout, lay_out
from loopdit.datasets.formats.mapped_episode import FOREIGN, TEXTS, to_foreign
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.mapping_file import mapping_from_dict, mapping_to_dict
from loopdit.datasets.formats.vector_parts import StepShape, labels_of
from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec, TensorSpec


@dataclass(frozen=True)
class Exporter:
    """`layout` says under which keys; `facts` are the former format's, where it is the same.

    `superseded` are keys under which an import kept vectors and texts that our own now stand for.
    """

    layout: Layout
    spec: PolicySpec
    facts: Mapping[str, Any]
    superseded: frozenset[str] = frozenset()

    def foreign(self, episode: Episode, where: str) -> ForeignEpisode:
        """One episode under the format's keys; other observations than cameras and proprio keep
        their names."""
        extras = {k: v for k, v in episode.extras.items() if k not in self.superseded}
        texts = episode.metadata.get(TEXTS, {})
        texts = {k: v for k, v in texts.items() if k not in self.superseded}
        foreign = to_foreign(
            self.layout,
            replace(episode, extras=extras, metadata={**episode.metadata, TEXTS: texts}),
            where,
        )
        return replace(foreign, steps={**foreign.steps, **_others(self.spec, episode)})

    def lost(self, episode: Episode) -> list[str]:
        """What of this episode the format is not given, one phrase each."""
        return [
            f"{key!r} as the former format had it, {episode.extras[key].dtype.name}"
            for key in sorted(self.superseded & set(episode.extras))
        ]

    def export(self, episodes: Iterator[Episode], count: int) -> Export:
        """What the format's writer is given."""
        layout, rate_hz = self.layout, 1.0 / self.spec.control_period_s
        return Export(
            episodes=(self.foreign(e, f"episode {n}") for n, e in enumerate(episodes)),
            count=count,
            rate_hz=rate_hz,
            images=(*layout.cameras.values(), *layout.left_out),
            names=_names(layout),
            facts=self.facts,
            ours={"mapping": mapping_to_dict(replace(layout.mapping, rate_hz=rate_hz))},
        )


def exporter(
    spec: PolicySpec, provenance: Mapping[str, Any], extras: Sequence[str], target: Format
) -> Exporter:
    """How episodes of this spec and provenance go into the target's format.

    `extras` are the names of the extras of the first episode.
    """
    former = provenance.get(FOREIGN)
    if isinstance(former, Mapping) and former.get("format") == target.NAME:
        return Exporter(_former_layout(former), spec, former["facts"])
    cameras = [camera.name.removeprefix(IMAGE_PREFIX) for camera in spec.cameras]
    mapping = _described(target.export_mapping(cameras, extras), spec)
    layout = lay_out(mapping, _our_steps(mapping, spec), f"the format {target.NAME}")
    superseded = {*layout.steps}
    if isinstance(former, Mapping):
        before = _former_layout(former)
        superseded |= {*_names(before), *before.mapping.instruction}
    return Exporter(layout, spec, {}, frozenset(superseded))


def _former_layout(former: Mapping[str, Any]) -> Layout:
    steps = {
        key: StepShape(tuple(step["shape"]), step["dtype"]) for key, step in former["steps"].items()
    }
    mapping = mapping_from_dict(former["mapping"], "the mapping in the store's provenance")
    return lay_out(mapping, steps, "the store's provenance", former["left_out"])


def _described(mapping: DataMapping, spec: PolicySpec) -> DataMapping:
    """An export mapping with the spec's labels, units, limits, frame and rate, and with keys for
    success and seed: reading what was written gives the same spec."""
    return replace(
        mapping,
        proprio=_parts(mapping.proprio, spec.proprio),
        action=_parts(mapping.action, spec.action),
        action_frame=spec.action_frame,
        rate_hz=1.0 / spec.control_period_s,
        instruction=mapping.instruction or ("instruction",),
        success=mapping.success or ("success",),
        seed=mapping.seed or ("seed",),
    )


def _parts(parts: Sequence[VectorPart], tensor: TensorSpec) -> tuple[VectorPart, ...]:
    """The tensor's description spread over the parts; only one of them may be without columns."""
    sizes = [len(part.columns) for part in parts]
    rest = tensor.shape[0] - sum(sizes)
    described: list[VectorPart] = []
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        chosen = slice(start, start + (size or rest))
        start = chosen.stop
        described.append(
            replace(
                part,
                labels=tensor.labels[chosen],
                units=tensor.units[chosen],
                low=tensor.low[chosen],
                high=tensor.high[chosen],
            )
        )
    return tuple(described)


def _our_steps(mapping: DataMapping, spec: PolicySpec) -> dict[str, StepShape]:
    """The shapes of the steps that the mapping's keys will have."""
    images = {camera.name: camera.shape for camera in spec.cameras}
    steps = {
        keys[0]: StepShape(images[f"{IMAGE_PREFIX}{camera}"], "uint8")
        for camera, keys in mapping.cameras.items()
    }
    for parts, tensor in ((mapping.proprio, spec.proprio), (mapping.action, spec.action)):
        taken = sum(len(part.columns) for part in parts)
        for part in parts:
            size = len(part.columns) or tensor.shape[0] - taken
            before = steps[part.keys[0]].shape[0] if part.keys[0] in steps else 0
            steps[part.keys[0]] = StepShape((before + size,), "float32")
    return steps


def _names(layout: Layout) -> dict[str, tuple[str, ...]]:
    """The labels of the elements of each foreign vector that is covered whole."""
    labels: dict[str, dict[int, str]] = {}
    for source in (*layout.proprio, *layout.action):
        labels.setdefault(source.key, {}).update(
            zip(source.columns, labels_of(source), strict=True)
        )
    sizes = {key: int(np.prod(layout.steps[key].shape)) for key in labels}
    return {
        key: tuple(found[i] for i in range(sizes[key]))
        for key, found in labels.items()
        if len(found) == sizes[key]
    }


def _others(spec: PolicySpec, episode: Episode) -> dict[str, np.ndarray]:
    return {
        tensor.name: episode.observations[tensor.name]
        for tensor in spec.observations
        if not tensor.is_image and tensor.name != PROPRIO
    }
