"""Contacts, against a comparison of each pair."""

from math import hypot

from loopdit.eval.experiments.tasks.contacts import CONTACT, DISCS, PROBE, ContactsTask


def test_the_probe_touches_where_it_overlaps_another_disc():
    canvas = ContactsTask().canvases(300, 3, "train")
    for probes, discs, contact in zip(
        canvas[PROBE].tolist(), canvas[DISCS].tolist(), canvas[CONTACT].flatten(), strict=True
    ):
        y, x, ten, *_ = probes[0]
        margins = [hypot(y - v, x - u) - ten / 10 - s / 10 for v, u, s, *_ in discs]
        if abs(min(margins)) > 1e-5:  # float32 cannot say of a graze
            assert (contact.item() > 0) == (min(margins) < 0)


def test_both_answers_are_common():
    share = float((ContactsTask().canvases(2000, 0, "train")[CONTACT] > 0).float().mean())
    assert 0.3 < share < 0.5
