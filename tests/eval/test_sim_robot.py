"""The shipped policy owns the loop of a simulated arm, at five times its own rate."""

import re

import pytest
from tests.deploy.raw_client import ANY_PORT
from tests.deploy.serving.serving_process import serving


@pytest.mark.system
def test_a_simulated_arm_lifts_the_cube_under_control_at_50_hz_and_the_server_ends_with_it():
    with serving(
        *("mode=control", "control.env=lift", "control.episodes=3", f"address={ANY_PORT}"),
        *(f"control.actions={ANY_PORT}", f"control.observations={ANY_PORT}"),
    ) as server:
        lines = [server.until("lift seed")[-1] for _ in range(3)]
        status, errors = server.end()
    assert status == 0, errors
    found = [
        re.fullmatch(r"lift seed 90000[012]: (success|failure) after \d+\.\d+ s", line)
        for line in lines
    ]
    assert all(found), lines
    # The world keeps real time: a machine too busy for the policy may cost an episode. How often it
    # lifts is policy-eval's to measure.
    assert "success" in [match[1] for match in found if match], lines


@pytest.mark.system
def test_an_environment_that_is_not_there_ends_the_server_as_a_failure():
    with serving(
        *("mode=control", "policy=zeros", "control.env=juggle", f"address={ANY_PORT}"),
        *(f"control.actions={ANY_PORT}", f"control.observations={ANY_PORT}"),
    ) as server:
        status, errors = server.end()
    assert status == 1
    assert "env=juggle is unknown" in errors
    assert "control.env=juggle, failed with exit status 1" in errors
