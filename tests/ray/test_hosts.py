"""A run on Ray equals the run in process, whatever the number of hosts, and whatever happens to them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray

import testbed.actors.pool as pools
from testbed.actors.calls import BackCall, BackItem, CloseCall, FrontCall, HostSpec
from testbed.actors.executor import HostRef
from testbed.codecs.framing import CodecError
from testbed.core.errors import HostFailedError
from testbed.results.folder import read_run
from testbed.run import RunResult, host_spec, prepare
from testbed.scenarios.load import load_scenario
from tests.processes import wait_until_gone

from .worlds import WatchedPool, on_ray, pids_of, run_small, watch

EARLY, LATE = 120, 220  # calls; the run has some 300


@pytest.fixture(scope="module", autouse=True)
def four_cpus() -> Iterator[None]:
    """Ray with room for eight hosts, whatever the machine has; a pool that finds it uses it and leaves it."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    children = [child.pid for child in psutil.Process().children(recursive=True)]
    yield
    assert ray.is_initialized()
    ray.shutdown()
    assert wait_until_gone(children) == []


@pytest.fixture(scope="module")
def spec(small: Path, four_cpus: None) -> HostSpec:
    """What the small scenario's hosts load."""
    return host_spec(prepare(load_scenario(small)))


class Shared(WatchedPool):
    """A pool that several runs use one after the other: a host takes seconds to start."""

    disturbances: Mapping[int, Callable[[WatchedPool], None]] = {}

    def close(self) -> None:
        """Not yet."""

    def close_now(self) -> None:
        super().close()

    def join(self, disturbances: Mapping[int, Callable[[WatchedPool], None]]) -> Shared:
        """The pool for its next run."""
        self.num_submitted, self.disturbances = 0, disturbances
        return self


@pytest.fixture(scope="module")
def hosts(spec: HostSpec) -> Iterator[Shared]:
    """Two edge hosts and two cloud hosts; one that is lost is started again."""
    pool = Shared(spec, edge_hosts=2, cloud_hosts=2, address=None, replay=True)
    yield pool
    pids = pids_of(pool)
    assert len(set(pids)) == 4
    pool.close_now()
    pool.close_now()
    assert wait_until_gone(pids) == []
    with pytest.raises(HostFailedError, match="have been closed"):
        pool.submit(HostRef("edge", 0), CloseCall(session=0))()


@pytest.fixture(scope="module")
def started(hosts: Shared) -> list[str]:
    """Hosts of the shared pool that no other pool has taken over yet."""
    return list(hosts.places)


@pytest.fixture
def taken_over(hosts: Shared, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pool's hosts are processes of the shared pool, which forget what they held when they are made ready."""
    lanes = {lane.name: lane for lane in hosts._all}
    monkeypatch.setattr(pools, "create_host", lambda spec: lanes[started.pop()].actor)


def kill_process(host: str) -> Callable[[WatchedPool], None]:
    """Ends a host from outside, as a crash would."""

    def disturb(pool: WatchedPool) -> None:
        place = pool.places[host]
        assert place is not None
        os.kill(place.pid, signal.SIGKILL)

    return disturb


@pytest.mark.parametrize("cloud_hosts", [1, 2])
@pytest.mark.parametrize("edge_hosts", [1, 2])
def test_number_of_hosts_changes_nothing(
    small: Path,
    undisturbed: RunResult,
    hosts: Shared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    edge_hosts: int,
    cloud_hosts: int,
) -> None:
    """A scenario that asks for fewer hosts than the pool has uses the first of them."""
    monkeypatch.setattr(pools, "RayPool", lambda spec, **options: hosts.join({}))
    calls, batches = hosts.num_calls, hosts.num_batches
    result = run_small(small, tmp_path / "run", *on_ray(edge_hosts, cloud_hosts))
    assert result.summary["event_digest"] == undisturbed.summary["event_digest"]
    assert result.summary["quality"] == undisturbed.summary["quality"]
    assert hosts.num_batches - batches < hosts.num_calls - calls


def test_digest_shows_another_token(small: Path, undisturbed: RunResult, tmp_path: Path) -> None:
    """What the other tests rest on."""
    changed = run_small(small, tmp_path / "run", "sampling.top_p=0.9")
    assert changed.summary["event_digest"] != undisturbed.summary["event_digest"]


def test_lost_hosts_are_replaced(
    small: Path, undisturbed: RunResult, hosts: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {EARLY: kill_process("cloud host 0"), LATE: kill_process("edge host 0")}
    monkeypatch.setattr(pools, "RayPool", lambda spec, **options: hosts.join(losses))
    before, restarts = hosts.places, hosts.num_restarts
    result = run_small(small, tmp_path / "run", *on_ray(1, 1, on_failure="replay"))
    assert hosts.num_restarts == restarts + 2
    assert {name for name, place in hosts.places.items() if place != before[name]} == {"cloud host 0", "edge host 0"}
    assert result.summary["complete"] is True
    assert result.summary["event_digest"] == undisturbed.summary["event_digest"]
    assert result.summary["quality"] == undisturbed.summary["quality"]


@pytest.mark.usefixtures("taken_over")
def test_lost_host_ends_the_run(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = watch(monkeypatch, {LATE: kill_process("edge host 0")})
    with pytest.raises(HostFailedError, match=r"^edge host 0 \(process \d+ on .*\) was lost: .*on_failure"):
        run_small(small, tmp_path / "run", *on_ray(1, 1))
    kept = read_run(tmp_path / "run").summary
    assert kept["complete"] is False
    assert kept["reason"].startswith("edge host 0")
    assert kept["completed"] > 0
    assert wait_until_gone(pids_of(kind.last)) == []


@pytest.mark.slow
def test_restarts_are_bounded(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_RESTARTS", 1)
    loss = kill_process("cloud host 0")
    watch(monkeypatch, {EARLY: loss, LATE: loss})
    with pytest.raises(HostFailedError, match=r"^cloud host 0 .* was lost: .*; it was started again 1 time before$"):
        run_small(small, tmp_path / "run", *on_ray(1, 1, on_failure="replay"))


@pytest.mark.usefixtures("taken_over")
def test_calls_go_in_batches_and_fail_as_themselves(spec: HostSpec) -> None:
    pool = pools.RayPool(spec, edge_hosts=1, cloud_hosts=1, address=None, replay=False)
    edge, cloud = HostRef("edge", 0), HostRef("cloud", 7)  # host numbers beyond the actors share them
    fronts = [
        pool.submit(edge, FrontCall(session=number, split=2, codec="int8", tokens=(number,))) for number in range(50)
    ]
    messages = [front().value for front in fronts]
    assert pool.num_calls == 50
    assert pool.num_batches <= 5
    assert messages[7] == fronts[7]().value

    item = BackItem(session=0, sampling_seed=0, split=2, codec="int8", message=messages[0], is_sealed=True)
    assert 0 <= pool.submit(cloud, BackCall(items=(item,)))().value[0] < 96
    broken = pool.submit(cloud, BackCall(items=(replace(item, message=b"abc", is_sealed=False),)))
    with pytest.raises(CodecError) as raised:
        broken()
    assert str(raised.value) == "a message of 3 bytes is shorter than its header"
    assert "shard_host.py" in raised.value.__notes__[0], "the host's traceback travels along"
    with pytest.raises(CodecError):  # the run is over: nothing more is handed to the actors
        pool.submit(edge, FrontCall(session=1, split=2, codec="int8", tokens=(1,)))()
    pool.close()
    assert wait_until_gone(pids_of(pool)) == []
