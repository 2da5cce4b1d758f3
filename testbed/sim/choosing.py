"""What policies may choose, and what they choose: a request's cut and codec at admission, codecs message by message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from testbed.codecs.framing import CodecError
from testbed.core.plan import Decision, MessageObservation, Observation
from testbed.core.registry import POLICIES
from testbed.scenarios.schema import Scenario
from testbed.sim.request_table import Request

Adapt = Callable[[MessageObservation], str]


class Policy(Protocol):
    """Decides at admission how a request is run; pure, with its state passed in and out."""

    def splits(self, num_layers: int) -> Sequence[int]:
        """Every split it may choose, so that what can't be held is refused before anything runs."""
        ...

    def codecs(self) -> Sequence[str]:
        """Every codec setting it may choose: what its sessions agree on at their start, and nothing else."""
        ...

    def decide(self, observation: Observation, state: Any) -> tuple[Decision, Any]: ...


@runtime_checkable
class AdaptivePolicy(Protocol):
    """A policy that chooses anew for each message of hidden states. The cut stays: only the codec can change."""

    def adapt(self, observation: MessageObservation) -> str:
        """The codec setting of the message about to be encoded, one of `codecs`; pure."""
        ...


def build_policies(scenario: Scenario) -> list[Policy]:
    """One policy a group."""
    configs = [scenario.policy_of(group) for group in scenario.fleet]
    return [POLICIES.load(config.kind)(config) for config in configs]


class Chooser:
    """The policies of a fleet at work; every device has a state of its own."""

    def __init__(self, scenario: Scenario) -> None:
        self.policies = build_policies(scenario)
        self._agreed = [frozenset(policy.codecs()) for policy in self.policies]
        self._states: dict[int, Any] = {}

    def decide(self, request: Request, observation: Observation) -> Decision:
        """Raises CodecError for a codec that the policy has not named before."""
        policy, state = self.policies[request.group], self._states.get(request.device)
        decision, self._states[request.device] = policy.decide(observation, state)
        self._check(request, decision.codec)
        return decision

    def adaptation(self, request: Request) -> Adapt | None:
        """What to ask before each message of the request; None where nothing changes after admission."""
        policy = self.policies[request.group]
        if not isinstance(policy, AdaptivePolicy):
            return None

        def adapt(observation: MessageObservation) -> str:
            codec = policy.adapt(observation)
            self._check(request, codec)
            return codec

        return adapt

    def _check(self, request: Request, codec: str) -> None:
        agreed = self._agreed[request.group]
        if codec not in agreed:
            listed = ", ".join(sorted(agreed))
            raise CodecError(f"request {request.request}: the session did not agree on codec {codec}, but on {listed}")


def codecs_at_cuts(scenario: Scenario, num_layers: int) -> list[tuple[str, int]]:
    """Every (codec setting, split) at which a real device may encode hidden states, sorted."""
    pairs = zip(scenario.fleet, build_policies(scenario), strict=True)
    real = [policy for group, policy in pairs if group.compute == "real"]
    return sorted(
        {
            (codec, split)
            for policy in real
            for split in policy.splits(num_layers)
            for codec in policy.codecs()
            if 0 < split < num_layers
        }
    )
