"""Names to implementations: rows are lazy ``"module:attribute"`` strings, so naming a thing imports nothing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name


class Registry:
    """The implementations of one seam, by the name a user writes."""

    def __init__(self, kind: str, rows: Mapping[str, str]) -> None:
        self.kind = kind
        self._rows = dict(rows)
        self._loaded: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def check(self, name: str) -> None:
        """Raise ScenarioError, with the nearest name, when there is no such row; imports nothing."""
        if name not in self._rows:
            raise ScenarioError(
                f"unknown {self.kind}", value=name, allowed=sorted(self._rows), nearest=nearest_name(name, self._rows)
            )

    def load(self, name: str) -> Any:
        """The implementation itself, imported when it is asked for first."""
        if name not in self._loaded:
            self.check(name)
            module, _, attribute = self._rows[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]


POLICIES = Registry(
    "policy",
    {
        "static": "testbed.policies.fixed:Static",
        "cloud-only": "testbed.policies.fixed:CloudOnly",
        "edge-only": "testbed.policies.fixed:EdgeOnly",
        "phases": "testbed.policies.adaptive:Phases",
        "ladder": "testbed.policies.adaptive:Ladder",
    },
)
CODECS = Registry(
    "codec",
    {
        "raw-float32": "testbed.codecs.named:RawFloat32",
        "raw-float16": "testbed.codecs.named:RawFloat16",
        "raw-bfloat16": "testbed.codecs.named:RawBfloat16",
        "int8": "testbed.codecs.named:UniformInt8",
        "int4": "testbed.codecs.named:UniformInt4",
        "uniform": "testbed.codecs.named:Uniform",
        "fp8": "testbed.codecs.named:Fp8",
        "ts": "testbed.codecs.named:Ts",
        "tabq": "testbed.codecs.named:Tabq",
        "ts-tabq": "testbed.codecs.named:TsTabq",
    },
)
RATES = Registry(
    "rate",
    {
        "constant": "testbed.network_models.rates.constant:ConstantRate",
        "markov": "testbed.network_models.rates.markov:MarkovRate",
        "rayleigh": "testbed.network_models.rates.rayleigh:RayleighRate",
        "rician": "testbed.network_models.rates.rician:RicianRate",
        "trace": "testbed.network_models.rates.trace:TraceRate",
    },
)
LOSSES = Registry(
    "loss",
    {
        "bernoulli": "testbed.network_models.losses.bernoulli:BernoulliLoss",
        "gilbert-elliott": "testbed.network_models.losses.gilbert_elliott:GilbertElliottLoss",
        "snr": "testbed.network_models.losses.snr:SnrLoss",
        "trace": "testbed.network_models.losses.trace:TraceLoss",
    },
)
QUEUES = Registry(
    "queue",
    {
        "drop-tail": "testbed.network_models.queues.drop_tail:DropTail",
        "codel": "testbed.network_models.queues.codel:Codel",
    },
)
TRANSPORTS = Registry(
    "transport",
    {
        "colocated": "testbed.network_models.transports.colocated:Colocated",
        "datagram": "testbed.network_models.transports.datagram:Datagram",
        "fec": "testbed.network_models.transports.fec:ForwardErrorCorrection",
        "stop-and-wait": "testbed.network_models.transports.stop_and_wait:StopAndWait",
        "selective-repeat": "testbed.network_models.transports.selective_repeat:SelectiveRepeat",
        "tcp": "testbed.network_models.transports.tcp:Tcp",
        "quic": "testbed.network_models.transports.quic:Quic",
    },
)
OUTAGES = Registry(
    "outage",
    {
        "schedule": "testbed.network_models.outages.schedule:ScheduledOutages",
        "periodic": "testbed.network_models.outages.periodic:PeriodicOutages",
        "random": "testbed.network_models.outages.at_random:RandomOutages",
    },
)
DISCIPLINES = Registry(
    "discipline",
    {
        "fifo": "testbed.network_models.sharing.disciplines.fifo:Fifo",
        "processor-sharing": "testbed.network_models.sharing.disciplines.weighted:ProcessorSharing",
        "weighted": "testbed.network_models.sharing.disciplines.weighted:Weighted",
        "round-robin": "testbed.network_models.sharing.disciplines.round_robin:RoundRobin",
        "proportional-fair": "testbed.network_models.sharing.disciplines.proportional_fair:ProportionalFair",
    },
)
SCHEDULERS = Registry(
    "scheduler",
    {
        "fifo": "testbed.schedulers.fifo:FifoScheduler",
        "shortest-first": "testbed.schedulers.shortest_first:ShortestFirstScheduler",
        "earliest-deadline": "testbed.schedulers.earliest_deadline:EarliestDeadlineScheduler",
        "fair": "testbed.schedulers.fair:FairScheduler",
    },
)
ROUTERS = Registry(
    "router",
    {
        "least-loaded": "testbed.schedulers.routers.least_loaded:LeastLoaded",
        "round-robin": "testbed.schedulers.routers.round_robin:RoundRobin",
        "random": "testbed.schedulers.routers.at_random:AtRandom",
        "power-of-two": "testbed.schedulers.routers.at_random:PowerOfTwo",
        "kv-affinity": "testbed.schedulers.routers.kv_affinity:KvAffinity",
        "nearest-region": "testbed.schedulers.routers.regional:NearestRegion",
        "spill-over": "testbed.schedulers.routers.regional:SpillOver",
    },
)
ARRIVALS = Registry(
    "arrivals",
    {
        "poisson": "testbed.workloads.arrivals.poisson:Poisson",
        "times": "testbed.workloads.arrivals.times:Times",
        "uniform": "testbed.workloads.arrivals.uniform:Uniform",
        "mmpp": "testbed.workloads.arrivals.mmpp:Mmpp",
        "diurnal": "testbed.workloads.arrivals.diurnal:Diurnal",
        "flash-crowd": "testbed.workloads.arrivals.flash_crowd:FlashCrowd",
        "closed": "testbed.workloads.arrivals.closed:Closed",
        "trace": "testbed.workloads.arrivals.trace:Trace",
        "mooncake": "testbed.workloads.arrivals.mooncake:Mooncake",
    },
)
QUANTISERS = Registry(
    "quantiser",
    {
        "rtn": "testbed.quantization.rtn:Rtn",
        "gptq": "testbed.quantization.gptq:Gptq",
        "fp8": "testbed.quantization.fp8:Fp8",
        "atom": "testbed.quantization.atom:Atom",
        "smoothquant": "testbed.quantization.smoothquant:SmoothQuant",
        "omniquant": "testbed.quantization.omniquant:OmniQuant",
    },
)
SEAMS = (
    POLICIES, CODECS, RATES, LOSSES, QUEUES, OUTAGES, TRANSPORTS, DISCIPLINES, ARRIVALS, SCHEDULERS, ROUTERS, QUANTISERS
)  # fmt: skip
