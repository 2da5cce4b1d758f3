"""What can be known of a run before it: the scenario checked, its model resolved, its requests drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.actors.payload_law import FILE_NAME as LAW_FILE
from testbed.actors.payload_law import PayloadLaw, read_payload_law
from testbed.actors.weight_plan import (
    AGREEMENT_TEXTS,
    CORPUS_TEXTS,
    calibration_sequences,
    calibration_tokens,
)
from testbed.codecs.agreed import needs_agreement
from testbed.core.cast import EngineChoice
from testbed.core.errors import ModelError, ScenarioError
from testbed.models.source import ModelSource, resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.scenarios.schema import Scenario
from testbed.sim.check import check_requests, check_scenario
from testbed.sim.choosing import codecs_at_cuts
from testbed.sim.cohort.eligible import choose
from testbed.sim.requests import RequestTable, Workloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A scenario found to be possible: its model resolved, its requests drawn, nothing started yet."""

    scenario: Scenario
    source: ModelSource
    requests: RequestTable
    calibration: tuple[tuple[int, ...], ...] = ()  # token ids, for quantisers that need text
    payload_law: PayloadLaw | None = None  # of modelled messages whose size follows their content
    engine: EngineChoice = field(default_factory=EngineChoice)

    @property
    def is_real(self) -> bool:
        return any(group.compute == "real" for group in self.scenario.fleet)


def prepare(scenario: Scenario) -> Prepared:
    """Check everything that can be checked before a run.

    Raises ScenarioError for a scenario that can't be run, ModelError for a model that can't be used.
    """
    try:
        source = resolve(scenario.model)
    except ModelError as error:
        raise error.located(path="model") from None
    check_scenario(scenario, source)
    workloads = Workloads(
        scenario, vocab_size=source.shape.vocab_size, tokenizer=lambda: load_tokenizer(source, scenario.tokenizer)
    )
    requests = workloads.requests()
    check_requests(scenario, source, requests)
    payload_law = _payload_law(scenario, source)
    return Prepared(
        scenario=scenario,
        source=source,
        requests=requests,
        calibration=_calibration(scenario, source),
        payload_law=payload_law,
        engine=_engine(scenario, source, payload_law, requests),
    )


def _engine(
    scenario: Scenario, source: ModelSource, payload_law: PayloadLaw | None, requests: RequestTable
) -> EngineChoice:
    """Raises ScenarioError where cohorts are asked for and would not say the same."""
    name, why = choose(scenario, source.shape.num_layers, payload_law, requests)
    if scenario.execution.engine == "cohorts" and name != "cohorts":
        raise ScenarioError(
            f"cohorts can't run this scenario exactly: {'; '.join(why)}",
            path="execution.engine", value="cohorts", allowed="auto, requests",
        )  # fmt: skip
    return EngineChoice(name=name, why=why)


def _calibration(scenario: Scenario, source: ModelSource) -> tuple[tuple[int, ...], ...]:
    """The calibration texts as token ids: the weights' own, the scenario's, or the shipped corpus; none if not needed.

    Needed by methods of quantising that read text, and by codecs whose sessions agree on something first.
    """
    packs = scenario.weights is not None and scenario.weights.needs_text
    agrees = any(needs_agreement(setting) for setting, _ in codecs_at_cuts(scenario, source.shape.num_layers))
    if not (packs or agrees) or not any(group.compute == "real" for group in scenario.fleet):
        return ()
    tokenizer = load_tokenizer(source, scenario.tokenizer)
    num_shipped = CORPUS_TEXTS if packs else AGREEMENT_TEXTS
    tokens = calibration_tokens(own_texts(scenario), tokenizer, num_shipped=num_shipped)
    path = "weights.calibration" if scenario.weights is not None and scenario.weights.calibration else "calibration"
    return calibration_sequences(tokens, source.shape.max_positions, path=path)


def own_texts(scenario: Scenario) -> Sequence[str]:
    return (scenario.weights.calibration if scenario.weights is not None else ()) or scenario.calibration or ()


def _payload_law(scenario: Scenario, source: ModelSource) -> PayloadLaw | None:
    """The law that the scenario names, else the one beside the model's weights, else none."""
    if scenario.payload_law is not None:
        try:
            return read_payload_law(Path(scenario.payload_law), source.shape.hidden_size)
        except ScenarioError as error:
            raise error.located(path="payload_law") from None
    beside = None if source.folder is None else source.folder / LAW_FILE
    return read_payload_law(beside, source.shape.hidden_size) if beside is not None and beside.is_file() else None
