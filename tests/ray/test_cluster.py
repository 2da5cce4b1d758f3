"""Somebody's cluster of two nodes on this machine: a run joins it, loses a node or not, and leaves it running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from testbed.core.errors import HostFailedError
from testbed.results.folder import read_run
from testbed.run import RunResult
from tests.processes import wait_until_gone

from .worlds import WatchedPool, on_ray, pids_of, run_small, watch

MIDDLE = 150  # calls; the run has some 300
# A node is dead when it has been silent for 6 s. Shorter limits would find dead what only waits on a busy machine.
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 10}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One CPU on each of two nodes; the test process is no part of it."""
    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": HEALTH})
    children = [child.pid for child in psutil.Process().children(recursive=True)]
    yield ray_cluster
    ray_cluster.shutdown()
    assert wait_until_gone(children) == []


@pytest.fixture
def second_node(cluster: Cluster) -> Iterator[Any]:
    """The node that the run does not stand on."""
    node = cluster.add_node(num_cpus=1)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def kill_node(cluster: Cluster, node: Any) -> Callable[[WatchedPool], None]:
    """Ends all processes of a node at once, as a power cut would.

    Ray ends the node's own processes; a host there notices later, and would go on answering until then.
    """

    def disturb(pool: WatchedPool) -> None:
        (host,) = [place for place in pool.places.values() if place is not None and place.node_id == node.node_id]
        cluster.remove_node(node, allow_graceful=False)
        with suppress(ProcessLookupError):
            os.kill(host.pid, signal.SIGKILL)

    return disturb


@pytest.mark.slow  # half a minute; the loss of a host on this machine is in test_hosts.py
def test_run_on_a_cluster_and_loss_of_a_node(
    small: Path,
    undisturbed: RunResult,
    cluster: Cluster,
    second_node: Any,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host that was there starts again on the node that is left, and nobody can tell from the results."""
    kind = watch(monkeypatch, {MIDDLE: kill_node(cluster, second_node)})
    result = run_small(small, tmp_path / "run", *on_ray(1, 1, on_failure="replay"), address=cluster.address)
    assert kind.last.num_restarts == 1
    assert result.summary["event_digest"] == undisturbed.summary["event_digest"]
    assert {place.node_id for place in kind.last.places.values() if place is not None} == {cluster.head_node.node_id}
    assert wait_until_gone(pids_of(kind.last)) == []
    assert not ray.is_initialized()
    assert cluster.head_node.remaining_processes_alive(), "the cluster is not ours to end"


@pytest.mark.slow
def test_loss_of_a_node_ends_the_run(
    small: Path, cluster: Cluster, second_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = watch(monkeypatch, {MIDDLE: kill_node(cluster, second_node)})
    with pytest.raises(HostFailedError, match=r"^(edge|cloud) host 0 \(process \d+ on .*\) was lost: "):
        run_small(small, tmp_path / "run", *on_ray(1, 1), address=cluster.address)
    kept = read_run(tmp_path / "run").summary
    assert kept["complete"] is False
    assert "was lost" in kept["reason"]
    assert kept["completed"] > 0
    assert wait_until_gone(pids_of(kind.last)) == []
    assert not ray.is_initialized()
