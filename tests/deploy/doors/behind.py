"""What the doors of the tests lead to."""

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.serving.server import PolicyServer


def inside_of(server: PolicyServer, begun: bool = True) -> Inside:
    offer = server.offer
    inside = Inside(lambda: PolicyClient(link=server.connect()), offer.spec, offer.horizon)
    if begun:
        inside.begin()
    return inside
