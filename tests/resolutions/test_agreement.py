"""The two resolutions give one answer, or `messages` is refused with the reason."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.network_models.build import needs_packets, resolution
from tests.links import changed
from tests.resolutions.grid import IMPAIRMENTS, KINDS, OUTAGES, agreement, link_for, refusal

EXACT = {"datagram", "fec", "stop-and-wait", "selective-repeat"}
TOLERANCE = 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_resolutions_agree_or_messages_are_refused(kind, tmp_path):
    if reason := refusal(kind):
        assert kind in reason
        assert kind not in EXACT
        return
    found = agreement(kind, tmp_path)
    assert all(kind in reason for reason in found.refused)
    assert found.links >= 3 * sum(found.refused.values())
    assert found.mean_error <= TOLERANCE
    assert found.p95_error <= TOLERANCE
    if kind in EXACT:
        assert found.equal == found.messages


REFUSED = {
    "transport": (link_for("tcp"), "tcp"),
    "jitter": (link_for("datagram", jitter={"law": "gamma", "mean": "8 ms", "std": "4 ms", "per": "packet"}), "jitter"),
    "queue": (link_for("datagram", queue={"kind": "codel", "limit": "1 MB"}), "queue"),
    "outages": (link_for("datagram", outages=[{**OUTAGES, "drop": True}]), "outages"),
    "loss": (link_for("stop-and-wait", **IMPAIRMENTS["bursts"]), "gilbert-elliott"),
}


@pytest.mark.parametrize(("profile", "name"), REFUSED.values(), ids=REFUSED)
def test_a_piece_that_needs_packets_says_why(profile, name):
    assert name in needs_packets(profile)
    assert resolution(profile) == resolution(changed(profile, resolution="packets")) == "packets"
    with pytest.raises(ScenarioError, match=rf"resolution: this link can't be computed by messages: .*{name}"):
        resolution(changed(profile, resolution="messages"))


def test_auto_takes_messages_where_it_can():
    profile = link_for("selective-repeat")
    assert resolution(profile) == resolution(changed(profile, resolution="messages")) == "messages"
    assert resolution(changed(profile, resolution="packets")) == "packets"
