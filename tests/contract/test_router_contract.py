"""Every shipped router holds the contract, and the contract finds broken ones."""

from __future__ import annotations

import pytest

from testbed.core.rng import Stream
from testbed.schedulers.routers.at_random import AtRandom, PowerOfTwo
from testbed.schedulers.routers.kv_affinity import KvAffinity
from testbed.schedulers.routers.least_loaded import LeastLoaded
from testbed.schedulers.routers.regional import NearestRegion, SpillOver
from testbed.schedulers.routers.round_robin import RoundRobin
from testbed.schedulers.routing import Ask, Candidate
from testbed.testing.router_contract import RouterContract


class TestLeastLoaded(RouterContract):
    def make_router(self, seed):
        return LeastLoaded(LeastLoaded.Config(), seed)


class TestRoundRobin(RouterContract):
    is_keyed = False

    def make_router(self, seed):
        return RoundRobin(RoundRobin.Config(), seed)


class TestAtRandom(RouterContract):
    def make_router(self, seed):
        return AtRandom(AtRandom.Config(), seed)


class TestPowerOfTwo(RouterContract):
    def make_router(self, seed):
        return PowerOfTwo(PowerOfTwo.Config(), seed)


class TestKvAffinity(RouterContract):
    is_keyed = False

    def make_router(self, seed):
        return KvAffinity(KvAffinity.Config(spill=2, otherwise="power-of-two"), seed)


class TestNearestRegion(RouterContract):
    def make_router(self, seed):
        return NearestRegion(NearestRegion.Config(), seed)


class TestSpillOver(RouterContract):
    def make_router(self, seed):
        return SpillOver(SpillOver.Config(threshold=3), seed)


class ByPlace(LeastLoaded):
    """Answers with a place in the list, not with a server."""

    def choose(self, ask, candidates):
        return min(range(len(candidates)), key=lambda place: candidates[place].num_outstanding)


class Counts(AtRandom):
    """Draws one after the other."""

    def __init__(self, config, seed):
        super().__init__(config, seed)
        self.count = 0

    def choose(self, ask, candidates):
        self.count += 1
        return super().choose(Ask(request=self.count), candidates)


class Unseeded(AtRandom):
    made = 0

    def __init__(self, config, seed):
        Unseeded.made += 1
        super().__init__(config, Unseeded.made)


class FirstOnly(LeastLoaded):
    def choose(self, ask, candidates):
        return candidates[0].server


class Sorts(LeastLoaded):
    def choose(self, ask, candidates):
        candidates.sort(key=lambda candidate: -candidate.server)
        return super().choose(ask, candidates)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (ByPlace, "test_it_always_chooses_one_of_the_candidates"),
        (ByPlace, "test_a_lone_candidate_is_chosen"),
        (Counts, "test_a_choice_does_not_depend_on_earlier_ones_unless_it_says_so"),
        (Unseeded, "test_the_same_seed_and_questions_give_the_same_choices"),
        (FirstOnly, "test_every_server_is_used_when_all_are_alike"),
        (Sorts, "test_candidates_are_left_as_they_are"),
    ],
)
def test_the_contract_finds_a_broken_router(broken, test):
    class Suite(RouterContract):
        def make_router(self, seed):
            return broken(broken.Config(), seed)

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


def servers(*outstanding, distances=None):
    distances = distances or [0] * len(outstanding)
    return [Candidate(server, load, far) for server, (load, far) in enumerate(zip(outstanding, distances, strict=True))]


@pytest.mark.parametrize(("load", "chosen"), [([0], 0), ([3, 1, 2], 1), ([2, 1, 1], 1), ([0, 0], 0)])
def test_the_least_loaded_server_is_chosen_the_first_among_equals(load, chosen):
    assert LeastLoaded(LeastLoaded.Config(), 1).choose(Ask(request=0), servers(*load)) == chosen


def test_round_robin_goes_on_after_the_last_one_and_skips_who_is_not_there():
    router, all_ = RoundRobin(RoundRobin.Config(), 1), servers(9, 0, 5, 0)
    assert [router.choose(Ask(request=0), all_) for _ in range(3)] == [0, 1, 2]
    assert router.choose(Ask(request=0), all_[:3]) == 0  # number 3 is away
    assert router.choose(Ask(request=0), all_[2:]) == 2


def test_power_of_two_takes_the_better_of_the_two_keyed_draws():
    router, draws = PowerOfTwo(PowerOfTwo.Config(), 5), Stream.named(5, "router")
    loads = [3, 1, 4, 1, 5]
    for request in range(200):
        one, other = draws.below(5, request, 0), draws.below(4, request, 1)
        other = other + 1 if other >= one else other
        assert other != one
        best = min((one, other), key=lambda server: (loads[server], server))
        assert router.choose(Ask(request=request), servers(*loads)) == best


def test_a_request_that_lost_its_server_draws_anew():
    router, alike = AtRandom(AtRandom.Config(), 5), servers(*[0] * 50)
    first, again = ([router.choose(Ask(request=r, attempt=a), alike) for r in range(50)] for a in (0, 1))
    assert first != again


def test_affinity_follows_the_session_until_its_server_is_too_busy_or_gone():
    router = KvAffinity(KvAffinity.Config(spill=2), 1)
    turn = Ask(request=0, session=7)
    assert router.choose(turn, servers(5, 0, 1)) == 1
    assert router.choose(turn, servers(0, 2, 1)) == 1  # no more than 2 busier than the best
    assert router.choose(turn, servers(0, 3, 1)) == 0  # spilled: and its KV is there from now on
    assert router.choose(turn, servers(1, 0, 1)) == 0
    assert router.choose(turn, servers(1, 2, 0)[1:]) == 2
    assert router.choose(Ask(request=0), servers(1, 0, 0)) == 1  # no session


def test_affinity_falls_back_on_the_router_it_names():
    router = KvAffinity(KvAffinity.Config.model_validate({"otherwise": {"kind": "spill-over", "threshold": 9}}), 1)
    assert router.choose(Ask(request=0, session=3), servers(8, 0, distances=[1, 2])) == 0


def test_the_nearest_region_however_busy_and_its_least_loaded_server():
    router = NearestRegion(NearestRegion.Config(), 1)
    assert router.choose(Ask(request=0), servers(0, 9, 8, distances=[3, 2, 2])) == 2


def test_spill_over_goes_to_the_next_region_at_the_threshold():
    router = SpillOver(SpillOver.Config(threshold=4), 1)
    far = [10, 10, 20, 30]
    assert router.choose(Ask(request=0), servers(4, 3, 0, 0, distances=far)) == 1
    assert router.choose(Ask(request=0), servers(4, 4, 3, 0, distances=far)) == 2
    assert router.choose(Ask(request=0), servers(4, 4, 4, 0, distances=far)) == 3
    assert router.choose(Ask(request=0), servers(6, 5, 5, 5, distances=far)) == 1  # all full: the nearer of the best
