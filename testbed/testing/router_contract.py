"""What every router must hold: subclass `RouterContract` in a test module, say how one is made, run pytest.

class TestMine(RouterContract):
    def make_router(self, seed):
        return MyRouter(MyRouter.Config(), seed)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from testbed.core.rng import Stream
from testbed.schedulers.routing import NO_SESSION, Ask, Candidate, Router

NUM_SERVERS, NUM_REQUESTS, NUM_SESSIONS, NUM_SEEDS = 6, 400, 20, 3
_DISTANCES_NS = (0, 5_000_000, 20_000_000)


@dataclass(slots=True)
class Fleet:
    """Made-up servers that come and go while requests enter and leave: what a cluster would ask a router."""

    seed: int
    asked: list[tuple[Ask, list[Candidate]]] = field(default_factory=list)
    outstanding: list[int] = field(default_factory=lambda: [0] * NUM_SERVERS)

    def route_all(self, router: Router) -> list[int]:
        """The servers of all requests, one after the other; each stays a while."""
        draw, sent = Stream.named(self.seed, "contract"), list[int]()
        for request in range(NUM_REQUESTS):
            session = draw.below(2 * NUM_SESSIONS, request, 0)
            ask = Ask(request=request, session=session if session < NUM_SESSIONS else NO_SESSION)
            candidates = [
                Candidate(server, self.outstanding[server], _DISTANCES_NS[(server + request) % len(_DISTANCES_NS)])
                for server in range(NUM_SERVERS)
                if draw.below(4, request, 1 + server) or server == request % NUM_SERVERS
            ]
            self.asked.append((ask, candidates))
            server = router.choose(ask, candidates)
            sent.append(server)
            self.outstanding[server] += 1
            leaves = draw.below(NUM_SERVERS, request, 100)
            self.outstanding[leaves] = max(0, self.outstanding[leaves] - 1)
        return sent


class RouterContract(ABC):
    """`is_keyed`: its choice depends on nothing but what it is asked, not on what it was asked before."""

    is_keyed: ClassVar[bool] = True

    @abstractmethod
    def make_router(self, seed: int) -> Router:
        """A router that has chosen nothing yet."""

    def test_it_always_chooses_one_of_the_candidates(self) -> None:
        for seed in range(NUM_SEEDS):
            fleet = Fleet(seed)
            sent = fleet.route_all(self.make_router(seed))
            for server, (ask, candidates) in zip(sent, fleet.asked, strict=True):
                assert server in {candidate.server for candidate in candidates}, f"request {ask.request}"

    def test_a_lone_candidate_is_chosen(self) -> None:
        router = self.make_router(1)
        for server in (4, 0, 2):
            assert router.choose(Ask(request=server), [Candidate(server, 10**6, 10**9)]) == server

    def test_the_same_seed_and_questions_give_the_same_choices(self) -> None:
        for seed in range(NUM_SEEDS):
            first, second = (Fleet(seed).route_all(self.make_router(seed)) for _ in range(2))
            assert first == second

    def test_candidates_are_left_as_they_are(self) -> None:
        candidates = [Candidate(server, server % 3, server) for server in range(NUM_SERVERS)]
        before = list(candidates)
        self.make_router(1).choose(Ask(request=7, session=3), candidates)
        assert candidates == before

    def test_a_choice_does_not_depend_on_earlier_ones_unless_it_says_so(self) -> None:
        if not self.is_keyed:
            return
        for seed in range(NUM_SEEDS):
            fleet = Fleet(seed)
            sent = fleet.route_all(self.make_router(seed))
            assert sent == [self.make_router(seed).choose(*asked) for asked in fleet.asked]

    def test_every_server_is_used_when_all_are_alike(self) -> None:
        router, load = self.make_router(2), [0] * NUM_SERVERS
        for request in range(NUM_REQUESTS):
            candidates: Sequence[Candidate] = [Candidate(server, load[server]) for server in range(NUM_SERVERS)]
            load[router.choose(Ask(request=request), candidates)] += 1
        assert min(load) > 0, "a server is starved"
