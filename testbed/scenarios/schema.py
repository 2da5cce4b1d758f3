"""The scenario: one frozen value that says all there is to say about a run."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.registry import POLICIES
from testbed.scenarios.base import Block, LossProbability, PositiveTimeNs, as_pydantic
from testbed.scenarios.cells import Cells, check_cells, check_membership
from testbed.scenarios.cluster import Operation, Region, Router, check_operation
from testbed.scenarios.device_state import GroupState, check_figures
from testbed.scenarios.kv import KV
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, ServerProfile
from testbed.scenarios.serving import Serving
from testbed.scenarios.topology import Topology, unknown_node
from testbed.scenarios.weights import Weights
from testbed.scenarios.workload import Workload

At = str | list[str]  # a node, a pattern such as cell-*, or several: members are dealt over these in turn
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class PolicyConfig(Block):
    """Base of every policy's own configuration; `kind` names the registry row."""

    kind: str


def _read_policy(value: object) -> object:
    """A bare name, or a mapping whose `kind` chooses the configuration class."""
    if isinstance(value, PolicyConfig):
        return value
    data = {"kind": value} if isinstance(value, str) else value
    try:
        kind = _policy_kind(data)
        return validate(POLICIES.load(kind).Config, data)
    except ScenarioError as error:
        inner = error.located(path="kind") if isinstance(value, dict) else error
        raise as_pydantic(inner) from None


def _policy_kind(data: object) -> str:
    names = sorted(POLICIES)
    if not isinstance(data, dict):
        raise ScenarioError("a policy's name, or a mapping with its kind, is expected", value=data, allowed=names)
    if "kind" not in data:
        raise ScenarioError("required key is missing", allowed=names)
    if not isinstance(data["kind"], str):
        raise ScenarioError("a policy's name is expected", value=data["kind"], allowed=names)
    return data["kind"]


Policy = Annotated[SerializeAsAny[PolicyConfig], BeforeValidator(_read_policy)]


class Sampling(Block):
    """How the next token is chosen: greedy at temperature 0, else as `generate()` defines these settings."""

    temperature: float = Field(default=0.0, ge=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)


class Group(GroupState):
    """Devices of one kind on links of one kind.

    `real` devices run shards of the model; `modelled` ones take their times and bytes from the same laws, without.
    """

    name: Name
    device: DeviceProfile
    count: int = Field(ge=1)
    compute: Literal["real", "modelled"] = "modelled"
    link: LinkProfile
    cell: str | None = None  # None: every link has its air to itself
    weight: int | None = Field(default=None, ge=1, le=2**20)  # in the cell, where its discipline takes weights
    at: At | None = None  # where its links lead, in a topology
    region: Region | None = None  # for routers that go by distance
    policy: Policy | None = None
    workload: Workload | None = None

    @model_validator(mode="after")
    def _device_has_the_figures(self) -> Self:
        check_figures(self.device, self)
        return self


class Servers(Serving, Operation):
    """Equal cloud workers with iteration-level continuous batching."""

    name: Name = "cloud"
    server: ServerProfile
    count: int = Field(default=1, ge=0)  # with `autoscale`, at the start
    at: At | None = None  # where it stands, in a topology

    @property
    def num_workers(self) -> int:
        """All that may ever run: ids are given to so many."""
        return self.count if self.autoscale is None else self.autoscale.max


class Slo(Block):
    """Goodput counts the completed requests that meet both limits."""

    ttft: PositiveTimeNs
    tpot: PositiveTimeNs


class Security(Block):
    """How messages are protected, and how often one is altered on its way."""

    seal: Literal["none", "aes-gcm", "chacha20"] = "none"  # authenticated encryption of every message, both ways
    tamper: LossProbability = 0.0  # one bit of a message up that has a tag or a checksum to tell by


class Execution(Block):
    """Where real shards compute. Nothing here changes a result, `costs` apart."""

    executor: Literal["local", "ray"] = "local"
    edge_hosts: int = Field(default=1, ge=1, le=1024)  # Ray actors that share the real devices
    cloud_hosts: int = Field(default=1, ge=1, le=1024)  # Ray actors that share the servers' real work
    costs: Literal["modelled", "measured"] = "modelled"
    on_failure: Literal["fail", "replay"] = "fail"  # when a host is lost
    engine: Literal["auto", "requests", "cohorts"] = "auto"  # a process a request, or compiled where that says the same


class Record(Block):
    spans: bool = True
    quality: bool = True  # compare real groups with the unsplit model


def _check_unique(section: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            path = f"{section}[{index}].name"
            raise as_pydantic(ScenarioError("an earlier entry has this name", path=path, value=name))


def places(at: At, topology: Topology) -> list[str]:
    """The nodes that `at` names, those of a pattern by name. Empty where a pattern fits none."""
    asked = [at] if isinstance(at, str) else at
    return [name for item in asked for name in _fitting(item, topology.node_names)]


def _fitting(item: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, item)] if any(mark in item for mark in "*?[") else [item]


def _check_places(section: str, entries: Sequence[Group | Servers], topology: Topology | None) -> None:
    for index, entry in enumerate(entries):
        path = f"{section}[{index}].at"
        if topology is None:
            if entry.at is not None:
                problem = "a place needs a topology, and there is none"
                raise as_pydantic(ScenarioError(problem, path=path, value=str(entry.at)))
            continue
        if entry.at is None:
            problem = "required key is missing beside a topology"
            raise as_pydantic(ScenarioError(problem, path=path, allowed="a node, a pattern such as cell-*, or a list"))
        names = topology.node_names
        found = places(entry.at, topology)
        if not found:
            raise as_pydantic(ScenarioError("no node fits", path=path, value=str(entry.at)))
        missing = next((name for name in found if name not in names), None)
        if missing is not None:
            raise unknown_node(path, missing, names)


class Scenario(Block):
    name: Name
    description: str = ""
    model: Annotated[
        str, Field(min_length=1)
    ]  # pebble | a local folder | a Hugging Face id | a known shape, for modelled groups only
    tokenizer: Annotated[str, Field(min_length=1)] | None = None  # a tokenizer file, where the model's folder has none
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    payload_law: Annotated[str, Field(min_length=1)] | None = None  # None: the one beside the weights, if any
    weights: Weights | None = None  # None: every weight in `dtype`
    calibration: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    # Texts that codecs are calibrated on, where they need it; None: some of the corpus that pebble learned from.
    kv: KV | None = None  # None: keys and values in `dtype`
    seed: int = Field(ge=0, lt=2**63)
    policy: Policy
    cells: list[Cells] = Field(default_factory=list)
    fleet: list[Group] = Field(min_length=1)
    servers: list[Servers] = Field(default_factory=list)
    topology: Topology | None = None  # None: a device's link leads straight to every server
    router: Router = Field(default="least-loaded", validate_default=True)
    workload: Workload | None = None
    sampling: Sampling = Sampling()
    slo: Slo | None = None
    stop_at: PositiveTimeNs | None = Field(default=None, validate_default=False)
    security: Security | None = None  # None: messages travel in the clear, and nobody alters them
    execution: Execution = Execution()
    record: Record = Record()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_unique("fleet", [group.name for group in self.fleet])
        _check_unique("servers", [servers.name for servers in self.servers])
        check_cells(self.cells)
        for index, servers in enumerate(self.servers):
            check_operation(f"servers[{index}]", servers.count, servers)
        for index, group in enumerate(self.fleet):
            check_membership(f"fleet[{index}]", self.cells, group.cell, group.weight, group.link.queue.kind)
        _check_places("fleet", self.fleet, self.topology)
        _check_places("servers", self.servers, self.topology)
        if self.workload is None and any(group.workload is None for group in self.fleet):
            raise as_pydantic(
                ScenarioError("required key is missing", path="workload", allowed="one here, or one in every group")
            )
        return self

    @property
    def seal(self) -> str:
        """How messages are encrypted; "none" where they are not."""
        return "none" if self.security is None else self.security.seal

    @property
    def alters_messages(self) -> bool:
        """Whether messages may arrive with a wrong bit: by tampering, or by a link."""
        is_tampered = self.security is not None and self.security.tamper > 0
        return is_tampered or any(group.link.corrupt > 0 for group in self.fleet)

    def place_of(self, entry: Group | Servers, member: int) -> str | None:
        """The node of member number `member` of a group or of equal servers; None without a topology."""
        if self.topology is None or entry.at is None:
            return None
        found = places(entry.at, self.topology)
        return found[member % len(found)]

    def policy_of(self, group: Group) -> PolicyConfig:
        return self.policy if group.policy is None else group.policy

    def workload_of(self, group: Group) -> Workload:
        workload = self.workload if group.workload is None else group.workload
        assert workload is not None, "checked when the scenario was read"
        return workload

    def workload_path(self, group: int) -> str:
        """The YAML path of the workload that this group of the fleet has."""
        return "workload" if self.fleet[group].workload is None else f"fleet[{group}].workload"

    def as_data(self) -> dict[str, Any]:
        """Plain data that reads back as the same scenario."""
        return self.model_dump(mode="json")
