"""A small real experiment: an in-context task that a model of width 16 learns in a moment."""

from loopdit.eval.experiments.experiment import Experiment, read

TINY = """
number: 99
title: Tiny
claim: Two pairs tell more than none.
choices: [all of it]
study: canvas
metric: guess_error
better: lower
baseline_metric: constant_main_loss
options:
  model: {width: 16, heads: 2, blocks: 1, loops: {loops: 2}}
  measures: [guess]
  looks: 2
  batch: 4
  examples: 16
  held_out: 8
factors:
  pairs:
    none: {task: context_0}
    two: {task: context_2}
scales:
  smoke: {seeds: 2, steps: 3}
  cpu: {seeds: 3, steps: 30}
  paper: {seeds: 4, steps: 300}
"""


def tiny(changed: str = "") -> Experiment:
    """The experiment, with fields that take the place of its own."""
    return read("tiny", TINY + changed)
