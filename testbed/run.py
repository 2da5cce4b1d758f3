"""One run: a scenario in, a folder of results out.

    from testbed.run import prepare, run
    result = run(prepare("scenarios/smoke.yaml"), folder)

Whatever ends a run early, an interrupt, a lost host or an error, what it had until then is kept and marked incomplete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.actors.agreement import agreed_spec
from testbed.actors.calls import HostSpec
from testbed.actors.executor import Executor
from testbed.actors.local import LocalExecutor
from testbed.actors.sealing import seal_secret
from testbed.actors.weight_plan import (
    CORPUS,
    weight_config,
)
from testbed.codecs.framing import SEAL_OVERHEAD_BYTES
from testbed.core.cast import Calibration, EngineChoice, Quality, RunEnd, Sealing
from testbed.core.events import Event, EventSink, RequestEnded
from testbed.models.sampling_config import SamplingConfig
from testbed.models.tokenizer import load_tokenizer
from testbed.prepared import Prepared, own_texts, prepare
from testbed.results.bulk import BulkRecorder
from testbed.results.measure import SloLimits, write_summary
from testbed.results.record import RunRecorder
from testbed.run_folder import check_folder, make_folder, write_inputs
from testbed.scenarios.schema import Scenario
from testbed.sim.casting import cast_of
from testbed.sim.choosing import codecs_at_cuts
from testbed.sim.cohort.accounts import assumed_sizes, cast_records, device_ends, link_ends, server_ends
from testbed.sim.cohort.build import codec_names
from testbed.sim.cohort.engine import CohortError, CohortRun, Results
from testbed.sim.cohort.state import REASONS
from testbed.sim.footprint import footprints
from testbed.sim.simulate import simulate
from testbed.sim.world import Answer, World, fitted_sizes

__all__ = ["Observer", "Prepared", "Progress", "RunResult", "prepare", "run"]

_EVENTS_PER_REPORT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    now_ns: int
    num_ended: int
    num_requests: int


Observer = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run: `summary` is what summary.json holds, `texts` the real requests' prompts and answers."""

    folder: Path
    summary: Mapping[str, Any]
    texts: Mapping[int, str]


def run(
    prepared: Prepared,
    folder: Path,
    *,
    address: str | None = None,
    force: bool = False,
    observe: Observer | None = None,
    when_incomplete: Callable[[], None] | None = None,
) -> RunResult:
    """Run a prepared scenario into `folder`; `address` names a Ray cluster to join instead of starting one.

    Re-raises what ended the run early, KeyboardInterrupt too, after the results so far are written and
    `when_incomplete` was called.
    """
    check_folder(folder, force=force)
    started, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    executor = _executor(prepared, address) if prepared.is_real else None
    try:
        make_folder(folder, force=force)  # only now: hosts that can't be had leave an earlier run as it was
        write_inputs(folder, prepared.scenario, started=started_at)
        if prepared.engine.name == "cohorts":
            try:
                return _Cohorts.begin(prepared, folder, observe, started).go(when_incomplete)
            except CohortError as error:  # begun anew, by the engine that can tell it
                prepared = replace(prepared, engine=EngineChoice(why=[str(error)]))
        return _Running.begin(prepared, folder, observe, started, executor).go(when_incomplete)
    finally:
        if executor is not None:
            executor.close()


@dataclass(slots=True, kw_only=True)
class _Running:
    """A run under way, and how it ends."""

    prepared: Prepared
    folder: Path
    world: World
    recorder: RunRecorder
    started: float

    @classmethod
    def begin(
        cls, prepared: Prepared, folder: Path, observe: Observer | None, started: float, executor: Executor | None
    ) -> _Running:
        scenario = prepared.scenario
        recorder = RunRecorder(folder, cast_of(scenario), spans=scenario.record.spans)
        emit = recorder if observe is None else _ProgressSink(recorder, observe, len(prepared.requests))
        world = World(scenario, prepared.source, executor=executor, emit=emit, payload_law=prepared.payload_law)
        return cls(prepared=prepared, folder=folder, world=world, recorder=recorder, started=started)

    def go(self, when_incomplete: Callable[[], None] | None) -> RunResult:
        scenario = self.prepared.scenario
        try:
            simulate(self.world, self.prepared.requests, stop_at_ns=scenario.stop_at)
            quality = {request: promise().value for request, promise in self.world.audits.items()}
        except BaseException as error:
            self._finish(reason=_reason(error), quality={})
            if when_incomplete is not None:
                when_incomplete()
            raise
        return self._finish(reason="", quality=quality)

    def _finish(self, *, reason: str, quality: Mapping[int, Quality]) -> RunResult:
        scenario, world = self.prepared.scenario, self.world
        measured = self.prepared.is_real and scenario.execution.costs == "measured"
        end = RunEnd(
            end_ns=world.clock.now_ns,
            complete=not reason,
            reason=reason,
            deterministic=not measured,
            wall_s=time.perf_counter() - self.started,
            devices=[device.end(world.clock.now_ns) for device in world.devices],
            servers=world.server_ends(world.clock.now_ns),
            links=[end for device in world.devices for end in device.link_ends()],
            edges=world.edge_ends(),
            cells=[end for cell in world.cells for end in cell.ends(world.clock.now_ns)],
            assumed_sizes=sorted(world.assumed_sizes),
            fitted_sizes=fitted_sizes(world),
            profile_tables=world.measured.uses(),
            calibration=_calibrated(self.prepared),
            quality=quality,
            texts=_texts(self.prepared, world.answers),
            sealing=_sealing(scenario.seal),
            request_facts=self.prepared.requests.facts,
            footprints=footprints(scenario, self.prepared.source.shape, self.prepared.requests),
            engine=self.prepared.engine,
        )
        self.recorder.close(end)
        return _measured(self.prepared, self.folder, end, self.recorder.digest)


@dataclass(slots=True, kw_only=True)
class _Cohorts:
    """A run of the compiled engine under way, and how it ends."""

    prepared: Prepared
    folder: Path
    cohorts: CohortRun
    recorder: BulkRecorder
    started: float

    @classmethod
    def begin(cls, prepared: Prepared, folder: Path, observe: Observer | None, started: float) -> _Cohorts:
        scenario, source, num_requests = prepared.scenario, prepared.source, len(prepared.requests)
        names = codec_names(scenario, source.shape.num_layers)
        cast = cast_records(scenario)
        recorder = BulkRecorder(folder, cast, prepared.requests.facts, codecs=names, reasons=REASONS)

        def report(now_ns: int, num_ended: int) -> None:
            if observe is not None:
                observe(Progress(now_ns=now_ns, num_ended=num_ended, num_requests=num_requests))

        results = Results(recorder.requests, recorder.iterations, report)
        cohorts = CohortRun(scenario, source, prepared.requests, results)
        return cls(prepared=prepared, folder=folder, cohorts=cohorts, recorder=recorder, started=started)

    def go(self, when_incomplete: Callable[[], None] | None) -> RunResult:
        try:
            self.cohorts.run()
        except CohortError:
            raise
        except BaseException as error:
            self.recorder.requests(self.cohorts.unfinished())
            self._finish(reason=_reason(error))
            if when_incomplete is not None:
                when_incomplete()
            raise
        return self._finish(reason="")

    def _finish(self, *, reason: str) -> RunResult:
        scenario, shape = self.prepared.scenario, self.prepared.source.shape
        end_ns, memory = self.cohorts.now_ns, self.cohorts.memory
        end = RunEnd(
            end_ns=end_ns,
            complete=not reason,
            reason=reason,
            deterministic=True,
            wall_s=time.perf_counter() - self.started,
            devices=device_ends(scenario, memory, end_ns),
            servers=server_ends(scenario, memory, end_ns),
            links=link_ends(scenario, memory),
            assumed_sizes=assumed_sizes(scenario, shape.num_layers),
            quality={},
            texts={},
            request_facts=self.prepared.requests.facts,
            footprints=footprints(scenario, shape, self.prepared.requests),
            engine=self.prepared.engine,
        )
        self.recorder.close(end)
        return _measured(self.prepared, self.folder, end, None)


def _measured(prepared: Prepared, folder: Path, end: RunEnd, event_digest: str | None) -> RunResult:
    slo = prepared.scenario.slo
    limits = None if slo is None else SloLimits(ttft_ns=slo.ttft, tpot_ns=slo.tpot)
    summary = write_summary(folder, end=end, event_digest=event_digest, slo=limits)
    return RunResult(folder=folder, summary=summary, texts=end.texts)


class _ProgressSink:
    """Passes events on and reports, now and then, how far the run is."""

    def __init__(self, recorder: EventSink, observe: Observer, num_requests: int) -> None:
        self._recorder = recorder
        self._observe = observe
        self._num_requests = num_requests
        self._num_events = 0
        self._num_ended = 0

    def __call__(self, event: Event) -> None:
        self._recorder(event)
        self._num_ended += isinstance(event, RequestEnded)
        self._num_events += 1
        if self._num_events % _EVENTS_PER_REPORT == 0 or self._num_ended == self._num_requests:
            self._observe(Progress(now_ns=event.time_ns, num_ended=self._num_ended, num_requests=self._num_requests))


def _calibrated(prepared: Prepared) -> Calibration | None:
    """What a run says of the text that its shards read."""
    if not prepared.calibration:
        return None
    text = "the scenario's texts" if own_texts(prepared.scenario) else CORPUS
    return Calibration(text=text, num_tokens=sum(map(len, prepared.calibration)))


def host_spec(prepared: Prepared) -> HostSpec:
    """What every host of a run is told: model, precision, seals, and the codecs that sessions may use."""
    sampling = prepared.scenario.sampling
    spec = HostSpec(
        source=prepared.source,
        dtype=prepared.scenario.dtype,
        sampling=SamplingConfig(
            greedy=sampling.temperature == 0,
            temperature=sampling.temperature or 1.0,
            top_k=sampling.top_k or 0,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
        ),
        keep_logits=prepared.scenario.record.quality,
        weights=None if prepared.scenario.weights is None else weight_config(prepared.scenario.weights),
        calibration=prepared.calibration,
        saved=_saved(prepared.scenario),
        front_kv_bits=None if prepared.scenario.kv is None else prepared.scenario.kv.front_bits,
        back_kv_bits=None if prepared.scenario.kv is None else prepared.scenario.kv.back_bits,
        seal=prepared.scenario.seal,
        seal_secret=seal_secret(prepared.scenario),
        refuses=prepared.scenario.alters_messages,
    )
    return agreed_spec(spec, codecs_at_cuts(prepared.scenario, prepared.source.shape.num_layers))


def _executor(prepared: Prepared, address: str | None) -> Executor:
    spec, execution = host_spec(prepared), prepared.scenario.execution
    if execution.executor == "local":
        return LocalExecutor(spec)
    from testbed.actors.pool import RayPool  # noqa: PLC0415 - loads Ray, only where it is asked for

    return RayPool(
        spec,
        edge_hosts=execution.edge_hosts,
        cloud_hosts=execution.cloud_hosts,
        address=address,
        replay=execution.on_failure == "replay",
    )


def _sealing(suite: str) -> Sealing | None:
    return None if suite == "none" else Sealing(suite=suite, overhead_bytes=SEAL_OVERHEAD_BYTES)


def _saved(scenario: Scenario) -> Path | None:
    """The folder of packed weights, as any process of this machine can name it."""
    weights = scenario.weights
    return None if weights is None or weights.saved is None else Path(weights.saved).absolute()


def _texts(prepared: Prepared, answers: Mapping[int, Answer]) -> dict[int, str]:
    """Prompt and answer of real requests as text, where the model has a tokenizer."""
    if not answers or (prepared.source.tokenizer_file is None and prepared.scenario.tokenizer is None):
        return {}
    tokenizer = load_tokenizer(prepared.source, prepared.scenario.tokenizer)
    return {request: tokenizer.decode([*answer.prompt, *answer.output]) for request, answer in answers.items()}


def _reason(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
