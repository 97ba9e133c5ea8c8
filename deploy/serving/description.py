"""What `policy-serve` prints of what it serves."""

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.offer import Offer
from loopdit.policy.encoders.vocabulary import NO_INSTRUCTION, TASK

_SHOWN_INSTRUCTIONS = 10


def description(offer: Offer, endpoint: str, bundle: Bundle | None, runs_on: str) -> str:
    """Lines for a person. `bundle`: None for a policy without one; `runs_on`: what computes it."""
    spec = offer.spec
    rows = {
        "takes": ", ".join(f"{t.name} {t.shape} {t.dtype}" for t in spec.observations),
        **({} if bundle is None else what_may_vary(bundle)),
        "gives": f"chunks of {offer.horizon} x {spec.action.shape[0]} actions, "
        f"one each {spec.control_period_s:g} s ({spec.action_frame})",
        "runs on": runs_on,
        "loops": f"{', '.join(map(str, offer.loops))} "
        f"(by default {offer.default_loops}, with {offer.default_steps} steps)",
        "in time": _times(offer),
        "endpoint": endpoint,
    }
    first = ("policy", offer.model_id)
    if bundle is not None:
        first = ("bundle", f"{bundle.path} (model {bundle.model_id})")
    named = dict([first]) | rows
    return "\n".join(f"{name:10}{value}" for name, value in named.items() if value)


def what_may_vary(bundle: Bundle) -> dict[str, str]:
    """What a client may say or leave out, by the name of its line; nothing for a policy of one task
    that needs all it takes."""
    rows: dict[str, str] = {}
    optional = bundle.spec.optional
    if optional:
        rows["may lack"] = f"{', '.join(optional)}; but not all cameras at once"
    kind, known = bundle.manifest.instruction, bundle.manifest.instructions
    if kind != NO_INSTRUCTION:
        how = "one of its tasks" if kind == TASK else "in these words or like them"
        said = "; ".join(repr(instruction) for instruction in known[:_SHOWN_INSTRUCTIONS])
        hidden = len(known) - _SHOWN_INSTRUCTIONS
        more = f"; {hidden} more: policy-info {bundle.path} json=true" if hidden > 0 else ""
        rows["told"] = f"its task by an instruction, {how}: {said}{more}"
    return rows


def _times(offer: Offer) -> str:
    """What may be chosen to meet a budget; empty where that is nothing, or was not measured."""
    planner = offer.planner
    if len(planner.rungs) < 2 or not planner.typical_s(planner.rungs[0]):
        return ""
    rungs = (
        f"K {rung.loops} x {rung.steps} steps in {planner.relied_s(rung) * 1e3:.1f} ms"
        for rung in (planner.rungs[0], planner.rungs[-1])
    )
    batches = f"; batches of {', '.join(map(str, planner.batches))}" if planner.batches else ""
    return f"from {' down to '.join(rungs)} (99 of 100){batches}"
