"""One self-contained HTML page of some episodes: frames, plots, instruction, outcome, extras.

Nothing is fetched: frames are JPEGs in the page. Only what is drawn is read, one episode at a time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.episode import ACTION
from loopdit.datasets.spec import TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.view.film import Film, film
from loopdit.datasets.view.plots import LEFT, RIGHT, WIDTH, element_plot

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_STRIP = 8  # frames of a film strip
_MOST_PLOTS = 48  # elements of one vector that are drawn


@dataclass(frozen=True)
class Plot:
    """One element of a vector. `svg` is its drawing, `values` what a pointer reads out."""

    label: str
    unit: str
    limits: str
    svg: str
    values: list[float]


@dataclass(frozen=True)
class PlotGroup:
    """The elements of one vector; `hidden` counts those that are not drawn."""

    title: str
    plots: list[Plot]
    hidden: int


@dataclass(frozen=True)
class Camera:
    """One camera's frames; `strip` are the (step, URL) of a few of them."""

    name: str
    film: Film
    strip: list[tuple[int, str]]


@dataclass(frozen=True)
class Extra:
    """An array that no policy reads, in words."""

    name: str
    shape: str
    range: str


@dataclass(frozen=True)
class Shown:
    """What the page shows of one episode. `data` is what its script reads, as JSON."""

    index: int
    id: str
    length: int
    seconds: float
    instruction: str
    success: bool | None
    seed: int | None
    digest: str
    cameras: list[Camera]
    groups: list[PlotGroup]
    extras: list[Extra]
    metadata: str
    data: str


def page_html(store: EpisodeStore, episodes: Sequence[int], most: int, widest: int) -> str:
    """The page of the episodes with these indices, with at most `most` frames of each camera.

    Raises StoreError for an episode that cannot be read.
    """
    from markupsafe import Markup

    from loopdit.pages import page_templates

    environment = page_templates([_TEMPLATES])
    environment.filters["svg"] = Markup  # made here, from numbers and escaped names
    return environment.get_template("view.html").render(
        name=Path(str(store.path)).name,
        path=str(store.path),
        count=len(store.episodes),
        steps=sum(record.length for record in store.episodes),
        rate_hz=1 / store.spec.control_period_s,
        action_frame=store.spec.action_frame,
        digest=store.digest(),
        episodes=[_shown(store, index, most, widest) for index in episodes],
    )


def _shown(store: EpisodeStore, index: int, most: int, widest: int) -> Shown:
    record, spec = store.episodes[index], store.spec
    arrays = store.arrays(index)
    cameras = [_camera(tensor.name, arrays[tensor.name], most, widest) for tensor in spec.cameras]
    vectors = [spec.action, *(t for t in spec.observations if len(t.shape) == 1)]
    groups = [
        _group(tensor, arrays[ACTION if tensor is spec.action else tensor.name], store)
        for tensor in vectors
    ]
    metadata = store.metadata(index)
    return Shown(
        index=index,
        id=record.id,
        length=record.length,
        seconds=record.length * spec.control_period_s,
        instruction=record.instruction,
        success=record.success,
        seed=record.seed,
        digest=record.digest,
        cameras=cameras,
        groups=groups,
        extras=[_extra(name, array) for name, array in store.extras(index).items()],
        metadata=json.dumps(metadata, indent=1, ensure_ascii=False) if metadata else "",
        data=_data(record.length, spec.control_period_s, cameras, groups),
    )


def _camera(name: str, frames: np.ndarray, most: int, widest: int) -> Camera:
    made = film(frames, most, widest)
    urls = made.urls
    chosen = np.unique(np.linspace(0, len(urls) - 1, min(_STRIP, len(urls))).round().astype(int))
    return Camera(name, made, [(made.steps[i], urls[i]) for i in chosen])


def _group(tensor: TensorSpec, values: np.ndarray, store: EpisodeStore) -> PlotGroup:
    """values (T, D)."""
    plots: list[Plot] = []
    for element in range(min(values.shape[1], _MOST_PLOTS)):
        label = tensor.labels[element] if tensor.labels else f"{tensor.name}[{element}]"
        unit = tensor.units[element] if tensor.units else ""
        limits = [side[element] for side in (tensor.low, tensor.high) if side]
        column = values[:, element].astype(np.float64)
        drawn = element_plot(
            column,
            store.spec.control_period_s,
            limits,
            f"{tensor.name} {label}{f' in {unit}' if unit not in ('', '1') else ''} over time",
        )
        told = f"[{limits[0]:g}, {limits[1]:g}]" if len(limits) == 2 else ""
        plots.append(Plot(label, unit, told, drawn, [float(f"{v:.4g}") for v in column]))
    return PlotGroup(tensor.name, plots, values.shape[1] - len(plots))


def _extra(name: str, array: np.ndarray) -> Extra:
    numeric = array.dtype.kind in "buif" and array.size
    text = f"{array.min():.4g} to {array.max():.4g}" if numeric else ""
    return Extra(name, f"{' x '.join(map(str, array.shape))} {array.dtype.name}", text)


def _data(
    length: int, period_s: float, cameras: Sequence[Camera], groups: Sequence[PlotGroup]
) -> str:
    """JSON that can stand in a `<script>`: no text in it can end the element."""
    data: Mapping[str, Any] = {
        "length": length,
        "period": period_s,
        "left": LEFT,
        "across": WIDTH - LEFT - RIGHT,
        "cameras": [{"steps": c.film.steps, "frames": c.film.urls} for c in cameras],
        "values": [plot.values for group in groups for plot in group.plots],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
