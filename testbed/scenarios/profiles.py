"""Device, server and link profiles: the catalogue's entries, every number with its source.

In a catalogue file a number is written ``{value: "9 GB/s", source: "..."}``; an override in a scenario may give the
bare value, whose source is then the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError
from testbed.core.registry import LOSSES, OUTAGES, QUEUES, RATES, TRANSPORTS
from testbed.scenarios.base import (
    Bandwidth,
    Block,
    ComputeRate,
    Energy,
    FileName,
    HeatCapacity,
    LossProbability,
    PositiveShare,
    PositiveSizeBytes,
    PositiveTimeNs,
    Power,
    Share,
    Temperature,
    ThermalResistance,
    TimeNs,
    as_pydantic,
)
from testbed.scenarios.jitter import JitterConfig
from testbed.scenarios.pieces import LossConfig, OutageConfig, QueueConfig, RateConfig, TransportConfig, piece
from testbed.scenarios.propagation import PropagationNs


def _at(key: str, problem: str, *, value: str, allowed: str) -> PydanticCustomError:
    """A fault that shows only beside other keys, at the key to change."""
    return as_pydantic(ScenarioError(problem, path=key, value=value, allowed=allowed))


class Profile(Block):
    """A catalogue entry: `sources` says, per field, where its number comes from."""

    name: str
    description: str = ""
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_sources(cls, data: Any) -> Any:
        """Split ``{value, source}`` into the value and an entry of `sources`."""
        if not isinstance(data, Mapping):
            return data
        plain: dict[str, Any] = {}
        sources = dict(data.get("sources") or {})
        for key, item in data.items():
            if key == "sources":
                continue
            if isinstance(item, Mapping) and "value" in item and set(item) <= {"value", "source"}:
                plain[key] = item["value"]
                sources[key] = str(item.get("source", "scenario"))
            else:
                plain[key] = item
        return {**plain, "sources": sources}


class TableFile(Block):
    """Times that were measured (testbed/actors/profile_table.py), in place of the roofline's."""

    file: FileName
    extrapolate: bool = False  # beyond what was measured; the summary says how far


class ProcessorProfile(Profile):
    """What the cost model knows of a processor.

    A layer takes ``kernel_overhead`` and what its kernels move over ``memory_bandwidth`` and calculate at ``compute``
    (testbed/actors/roofline.py): *effective* figures, as reached by inference software, not the data sheet's peaks.
    """

    memory: PositiveSizeBytes
    memory_bandwidth: Bandwidth
    compute: ComputeRate
    kernel_overhead: TimeNs  # per decoder layer and per stage: launches, dispatch
    host_time: TimeNs = Field(default=0, validate_default=False)  # to launch a layer, while kernels run
    overlap: Literal["full", "partial"] = "full"  # of a kernel's loads with its arithmetic
    idle_power: Power
    active_power: Power
    # Of one core with messages of some kilobytes. The defaults are assumptions: a core without AES instructions.
    aes_gcm_rate: Bandwidth = Field(default=25e6, validate_default=False)
    chacha20_rate: Bandwidth = Field(default=100e6, validate_default=False)
    profile_table: TableFile | None = None

    @model_validator(mode="after")
    def _active_above_idle(self) -> Self:
        if self.active_power < self.idle_power:
            allowed = f"at least the idle_power of {self.idle_power:g} W"
            raise _at("active_power", "less than when idle", value=f"{self.active_power:g} W", allowed=allowed)
        return self

    @property
    def num_processors(self) -> int:
        """How many equal ones share every layer; all other numbers are those of one."""
        return 1


class ThrottleStep(Block):
    """From the temperature `above` on a stage runs at this `speed`, and does until it starts cooler than `below`."""

    above: Temperature
    below: Temperature
    speed: PositiveShare
    power: Share | None = None  # of active_power above idle_power; None: as the speed


class DeviceProfile(ProcessorProfile):
    """An edge device. `reserved_memory` is what its system, the runtime and the codec buffers hold.

    What only battery and heat ask for may be left out.
    """

    reserved_memory: PositiveSizeBytes
    transmit_power: Power  # added while a message is being clocked out
    receive_power: Power
    sleep_power: Power = Field(default=0.0, validate_default=False)
    battery_capacity: Energy | None = None
    thermal_resistance: ThermalResistance | None = None  # from the processor to the air around
    heat_capacity: HeatCapacity | None = None
    throttle: Annotated[tuple[ThrottleStep, ...], Field(strict=False)] = ()  # from the mildest to the hardest
    shutdown_temperature: Temperature | None = None
    restart_temperature: Temperature | None = None  # cooled to this it comes back; None: never

    @model_validator(mode="after")
    def _temperatures_in_order(self) -> Self:
        for place, step in enumerate(self.throttle):
            if step.below >= step.above:
                raise _at(f"throttle[{place}].below", "it would never cool down to this", value=f"{step.below:g} degC",
                          allowed=f"below {step.above:g} degC")  # fmt: skip
            if place and step.above <= self.throttle[place - 1].above:
                raise _at(f"throttle[{place}].above", "not above the step before", value=f"{step.above:g} degC",
                          allowed=f"above {self.throttle[place - 1].above:g} degC")  # fmt: skip
        limit, restart = self.shutdown_temperature, self.restart_temperature
        if restart is not None and (limit is None or restart >= limit):
            allowed = "beside a shutdown_temperature" if limit is None else f"below {limit:g} degC"
            raise _at("restart_temperature", "not below where it shuts off", value=f"{restart:g} degC", allowed=allowed)
        return self


class ServerProfile(ProcessorProfile):
    """A cloud worker: one accelerator or CPU socket, or `tensor_parallel` of them on one interconnect."""

    reserved_memory: PositiveSizeBytes
    price_per_hour: float | None = Field(default=None, ge=0)  # US dollars, of one processor
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    interconnect_bandwidth: Bandwidth | None = None  # of a ring through all processors, in one direction
    interconnect_latency: TimeNs = Field(default=0, validate_default=False)  # of an all-reduce of few bytes

    @model_validator(mode="after")
    def _connected(self) -> Self:
        if self.tensor_parallel > 1 and self.interconnect_bandwidth is None:
            problem = "processors that share layers need an interconnect"
            raise as_pydantic(ScenarioError(problem, path="interconnect_bandwidth", allowed="such as 200 GB/s"))
        return self

    @property
    def num_processors(self) -> int:
        return self.tensor_parallel

    @property
    def worker_price_per_hour(self) -> float | None:
        """US dollars for all processors of a worker; None where no price is known."""
        return None if self.price_per_hour is None else self.tensor_parallel * self.price_per_hour


Rate = Annotated[SerializeAsAny[RateConfig], piece(RATES, short_kind="constant", short_key="rate")]
Loss = Annotated[SerializeAsAny[LossConfig], piece(LOSSES, short_kind="bernoulli", short_key="p")]
Queue = Annotated[SerializeAsAny[QueueConfig], piece(QUEUES, short_kind="drop-tail", short_key="limit")]
Outage = Annotated[SerializeAsAny[OutageConfig], piece(OUTAGES)]
Transport = Annotated[SerializeAsAny[TransportConfig], piece(TRANSPORTS)]


class RadioConfig(Block):
    """A radio that sleeps: the first message after `idle_after` without any waits for `promotion`."""

    promotion: PositiveTimeNs
    idle_after: TimeNs


class LinkProfile(Profile):
    """An access link between one device and the servers, both directions, put together from pieces."""

    rate_up: Rate
    rate_down: Rate
    propagation_delay: PropagationNs  # one way
    jitter: JitterConfig | None = None
    loss: Loss = Field(default=0.0, validate_default=True)  # of packets, each direction for itself
    duplicate: LossProbability = 0.0  # of a packet that arrives, to arrive once more
    corrupt: LossProbability = 0.0  # of a packet that arrives, to arrive with a wrong bit
    mtu: PositiveSizeBytes = Field(default=1500, validate_default=False)  # network-layer bytes a packet
    header: PositiveSizeBytes = Field(default=40, validate_default=False)  # of those, headers
    queue: Queue = Field(default="1 MB", validate_default=True)
    outages: Annotated[tuple[Outage, ...], Field(strict=False)] = ()
    radio: RadioConfig | None = None
    transport: Transport = Field(default="selective-repeat", validate_default=True)
    resolution: Literal["auto", "packets", "messages"] = "auto"

    @model_validator(mode="after")
    def _packet_fits(self) -> Self:
        if self.header >= self.mtu:
            allowed = f"less than the mtu of {self.mtu} B"
            raise _at("header", "headers leave no room in a packet", value=f"{self.header} B", allowed=allowed)
        least_bytes = self.transport.least_mtu_bytes
        if self.mtu < least_bytes:
            allowed = f"at least {least_bytes} B"
            raise _at("mtu", f"too small for transport {self.transport.kind}", value=f"{self.mtu} B", allowed=allowed)
        if self.queue.limit < self.mtu:
            allowed = f"at least the mtu of {self.mtu} B"
            raise _at("queue", "the queue can't hold one packet", value=f"{self.queue.limit} B", allowed=allowed)
        return self
