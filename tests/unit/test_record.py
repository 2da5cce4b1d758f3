"""What the recorder writes is what the events said, also when the run stops half-way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.cast import Cast, DeviceEntry, Quality, RequestFacts, RunEnd, ServerEntry
from testbed.core.errors import ScenarioError
from testbed.core.events import (
    HOPS,
    Event,
    EventDigest,
    Hop,
    IterationEnded,
    Outcome,
    RequestAdmitted,
    RequestArrived,
    RequestEnded,
    SpanEnded,
    TokenDelivered,
    TransferEnded,
    canonical_text,
)
from testbed.results import files
from testbed.results.folder import batches, read_run, read_tables
from testbed.results.record import RunRecorder
from testbed.results.stream import TableStream
from tests.unit.fake_runs import MS, FakeRun, fake_run, write_run

CAST = Cast(
    devices=[
        DeviceEntry(device=0, group="edge", kind="pi", real=True),
        DeviceEntry(device=1, group="phones", kind="phone", real=False),
    ],
    servers=[ServerEntry(server=0, group="cloud", kind="l4")],
)


def _end(**changes: object) -> RunEnd:
    end = RunEnd(
        end_ns=1000,
        complete=True,
        reason="",
        deterministic=True,
        wall_s=0.5,
        devices=[],
        servers=[],
        links=[],
        assumed_sizes=[],
        quality={},
        texts={},
    )
    return replace(end, **changes)  # type: ignore[arg-type]


def _transfer(time_ns: int, direction: str, payload: int, wire: int, retransmissions: int) -> TransferEnded:
    return TransferEnded(
        time_ns=time_ns,
        request=7,
        link=0,
        direction=direction,
        sent_ns=time_ns - 15,
        payload_bytes=payload,
        wire_bytes=wire,
        num_packets=1,
        num_retransmissions=retransmissions,
        delivered=True,
    )


ONE_REQUEST: list[Event] = [
    RequestArrived(time_ns=100, request=7, device=0, prompt_tokens=5, max_output_tokens=3),
    RequestAdmitted(time_ns=110, request=7, split=4, codec="int8", server=0),
    SpanEnded(time_ns=110, request=7, step=0, hop=Hop.DEVICE_WAIT, start_ns=100, end_ns=110),
    SpanEnded(time_ns=150, request=7, step=0, hop=Hop.FRONT, start_ns=110, end_ns=150),
    SpanEnded(time_ns=215, request=7, step=0, hop=Hop.UP_SERIALISE, start_ns=150, end_ns=210, size_bytes=340),
    SpanEnded(time_ns=215, request=7, step=0, hop=Hop.UP_PROPAGATE, start_ns=210, end_ns=215),
    _transfer(215, "up", 300, 340, 2),
    SpanEnded(time_ns=240, request=7, step=0, hop=Hop.BACK, start_ns=215, end_ns=240),
    _transfer(240, "down", 4, 44, 0),
    TokenDelivered(time_ns=240, request=7, index=0, token=11),
    SpanEnded(time_ns=290, request=7, step=1, hop=Hop.FRONT, start_ns=240, end_ns=290),
    _transfer(290, "up", 60, 100, 1),
    TokenDelivered(time_ns=290, request=7, index=1, token=12),
    SpanEnded(time_ns=340, request=7, step=2, hop=Hop.FRONT, start_ns=290, end_ns=340),
    TokenDelivered(time_ns=340, request=7, index=2, token=13),
    RequestEnded(time_ns=340, request=7, outcome=Outcome.COMPLETED, reason="length"),
]


def _record(folder: Path, events: list[Event], end: RunEnd, *, spans: bool = True, cast: Cast = CAST) -> RunRecorder:
    recorder = RunRecorder(folder, cast, spans=spans)
    for event in events:
        recorder(event)
    recorder.close(end)
    return recorder


def _rows(folder: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(folder / name).to_pylist()


def test_a_request_becomes_the_row_that_its_events_say(tmp_path: Path) -> None:
    quality = {7: Quality(num_tokens=3, num_agree=2, max_logit_difference=0.25)}
    column = np.arange(8)
    facts = RequestFacts(
        kind_names=["code", "text"],
        kind=column % 2,
        session=column - 4,
        turn=column - 5,
        history_tokens=column - 3,
    )
    _record(tmp_path, ONE_REQUEST, _end(quality=quality, texts={7: "a boat"}, request_facts=facts))
    (row,) = _rows(tmp_path, files.REQUESTS)
    hops = {name: row.pop(files.hop_column(name)) for name in HOPS}
    assert {hop: time for hop, time in hops.items() if time} == {
        "device_wait": 10,
        "front": 40 + 50 + 50,
        "up_serialise": 60,
        "up_propagate": 5,
        "back": 25,
    }
    assert row == {
        "request": 7,
        "group": "edge",
        "kind": "text",
        "session": 3,
        "turn": 2,
        "history_tokens": 4,
        "device": 0,
        "device_kind": "pi",
        "real": True,
        "server": 0,
        "split": 4,
        "codec": "int8",
        "codec_changes": 0,
        "outcome": "completed",
        "reason": "length",
        "prompt_tokens": 5,
        "max_output_tokens": 3,
        "output_tokens": 3,
        "arrival_ns": 100,
        "admitted_ns": 110,
        "first_token_ns": 240,
        "last_token_ns": 340,
        "end_ns": 340,
        "ttft_s": pytest.approx(140e-9),
        "tpot_s": pytest.approx(50e-9),
        "e2e_s": pytest.approx(240e-9),
        "payload_bytes_up": 360,
        "payload_bytes_down": 4,
        "wire_bytes_up": 440,
        "wire_bytes_down": 44,
        "retransmissions": 3,
        "preemptions": 0,
        "swapped_bytes": 0,
        "recomputed_tokens": 0,
        "prefix_tokens": 0,
        "requeues": 0,
        "tokens": [11, 12, 13],
        "text": "a boat",
        "compared_tokens": 3,
        "agreeing_tokens": 2,
        "token_agreement": pytest.approx(2 / 3),
        "max_logit_difference": 0.25,
    }


def test_what_is_not_defined_is_null(tmp_path: Path) -> None:
    events: list[Event] = [
        RequestArrived(time_ns=5, request=0, device=1, prompt_tokens=9, max_output_tokens=4),
        RequestEnded(time_ns=5, request=0, outcome=Outcome.OOM, reason="device memory"),
    ]
    _record(tmp_path, events, _end())
    (row,) = _rows(tmp_path, files.REQUESTS)
    undefined = {name for name, value in row.items() if value is None}
    assert undefined == {
        *("kind", "session", "turn", "history_tokens"),
        *("server", "split", "codec", "admitted_ns", "first_token_ns", "last_token_ns"),
        *("ttft_s", "tpot_s", "e2e_s", "tokens", "text"),
        *("compared_tokens", "agreeing_tokens", "token_agreement", "max_logit_difference"),
    }
    assert (row["outcome"], row["end_ns"], row["reason"]) == ("oom", 5, "device memory")


def test_hops_add_up_to_the_end_to_end_time_of_every_ended_request(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run())
    ended = [row for row in _rows(tmp_path, files.REQUESTS) if row["end_ns"] is not None]
    assert {row["outcome"] for row in ended} == {"completed", "oom", "failed"}
    for row in ended:
        assert sum(row[files.hop_column(hop)] for hop in HOPS) == row["end_ns"] - row["arrival_ns"]


def test_spans_say_the_same_as_the_hop_columns(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run())
    spans = pq.read_table(tmp_path / files.SPANS)
    assert pa.types.is_dictionary(spans.schema.field("hop").type)
    sums: dict[tuple[int, str], int] = {}
    for row in spans.to_pylist():
        key = (row["request"], row["hop"])
        sums[key] = sums.get(key, 0) + row["end_ns"] - row["start_ns"]
    for row in _rows(tmp_path, files.REQUESTS):
        for hop in HOPS:
            assert row[files.hop_column(hop)] == sums.get((row["request"], hop), 0)


def test_requests_transfers_and_links_count_the_same_bytes(tmp_path: Path) -> None:
    write_run(tmp_path, fake_run())
    requests, transfers = read_tables(tmp_path).requests, pq.read_table(tmp_path / files.TRANSFERS).to_pylist()
    links = _rows(tmp_path, files.LINKS)
    for direction in ("up", "down"):
        for what in ("payload", "wire"):
            of_requests = sum(requests[f"{what}_bytes_{direction}"].to_pylist())
            for rows in (transfers, links):
                assert of_requests == sum(r[f"{what}_bytes"] for r in rows if r["direction"] == direction) > 0
    assert sum(r["retransmissions"] for r in transfers) == sum(requests["retransmissions"].to_pylist()) > 0
    assert not all(row["delivered"] for row in transfers)


def test_servers_and_devices(tmp_path: Path) -> None:
    run = fake_run(num_servers=2)
    write_run(tmp_path, run)
    iterations = [event for event in run.events if isinstance(event, IterationEnded)]
    rows = _rows(tmp_path, files.SERVERS)
    assert [(r["server"], r["iteration"], r["end_ns"], r["num_sequences"], r["num_waiting"]) for r in rows] == [
        (e.server, e.iteration, e.time_ns, e.num_sequences, e.num_waiting) for e in iterations
    ]
    totals = _rows(tmp_path, files.SERVER_TOTALS)
    assert [row["iterations"] for row in totals] == [400, 400]
    assert [row["busy_ns"] for row in totals] == [entry.busy_ns for entry in run.end.servers]
    outcomes = [event for event in run.events if isinstance(event, RequestEnded)]
    devices = _rows(tmp_path, files.DEVICES)
    for outcome in ("completed", "oom", "failed"):
        assert sum(row[outcome] for row in devices) == sum(event.outcome == outcome for event in outcomes)
    assert all(row["requests"] == 6 for row in devices)
    assert devices[0]["kind"] == "raspberry-pi-5"
    assert devices[0]["real"] is True


def test_an_interrupted_run_is_readable_and_says_what_is_incomplete(tmp_path: Path) -> None:
    run = fake_run(cut_at_s=3.0)
    summary = write_run(tmp_path, run)
    arrived = {event.request for event in run.events if isinstance(event, RequestArrived)}
    ended = {event.request for event in run.events if isinstance(event, RequestEnded)}
    assert arrived - ended
    read = read_run(tmp_path)
    unfinished = [row for row in read.tables.requests.to_pylist() if row["outcome"] == "incomplete"]
    assert {row["request"] for row in unfinished} == arrived - ended
    assert all(row["end_ns"] is None and row["e2e_s"] is None for row in unfinished)
    assert summary["incomplete"] == len(unfinished)
    assert summary["complete"] is False
    for name in (files.SPANS, files.TRANSFERS, files.SERVERS):
        assert pq.read_table(tmp_path / name).num_rows > 0


def test_an_explicit_end_as_incomplete_has_no_end_time(tmp_path: Path) -> None:
    stopped = RequestEnded(time_ns=300, request=7, outcome=Outcome.INCOMPLETE, reason="stop_at")
    _record(tmp_path, [*ONE_REQUEST[:10], stopped], _end(complete=False, reason="stop_at"))
    (row,) = _rows(tmp_path, files.REQUESTS)
    assert (row["outcome"], row["reason"], row["end_ns"], row["output_tokens"]) == ("incomplete", "stop_at", None, 1)


def test_a_run_without_events_still_leaves_every_table(tmp_path: Path) -> None:
    write_run(tmp_path, FakeRun(cast=CAST, events=[], end=_end(complete=False, reason="interrupted")))
    tables = read_run(tmp_path).tables
    assert tables.requests.schema.equals(files.REQUEST_SCHEMA)
    assert (tables.requests.num_rows, tables.devices.num_rows, tables.server_totals.num_rows) == (0, 2, 1)
    assert tables.devices["energy_j"].to_pylist() == [None, None]


def test_without_spans_the_hop_columns_stay(tmp_path: Path) -> None:
    _record(tmp_path, ONE_REQUEST, _end(), spans=False)
    assert not (tmp_path / files.SPANS).exists()
    assert not (tmp_path / files.TRANSFERS).exists()
    assert list(batches(tmp_path / files.TRANSFERS, ["end_ns"])) == []
    assert _rows(tmp_path, files.REQUESTS)[0][files.hop_column("front")] == 140


def test_a_stream_writes_whole_row_groups_while_it_runs(tmp_path: Path) -> None:
    stream = TableStream(tmp_path / "s.parquet", files.SPAN_SCHEMA, {"hop": HOPS}, rows_per_group=100)
    for index in range(250):
        stream.append(index, 0, index % len(HOPS), index, index + 1, 0)
        assert len(stream._cells) <= 100 * 6 * 8
    stream.close()
    opened = pq.ParquetFile(tmp_path / "s.parquet")
    assert [opened.metadata.row_group(k).num_rows for k in range(opened.num_row_groups)] == [100, 100, 50]
    table = opened.read()
    assert table["request"].to_pylist() == list(range(250))
    assert table["hop"].to_pylist() == [str(HOPS[index % len(HOPS)]) for index in range(250)]


def test_what_the_recorder_has_of_a_run_does_not_depend_on_who_counts(tmp_path: Path) -> None:
    """NumPy integers in events, as a vectorised engine sends them, leave the same files and digest."""
    plain, numpy_folder = tmp_path / "plain", tmp_path / "numpy"
    plain.mkdir()
    numpy_folder.mkdir()
    as_numpy = [
        replace(event, **{n: np.int64(getattr(event, n)) for n in ("time_ns", "request")})  # type: ignore[arg-type]
        for event in ONE_REQUEST
    ]
    one, other = _record(plain, ONE_REQUEST, _end()), _record(numpy_folder, as_numpy, _end())
    assert one.digest == other.digest
    assert _rows(plain, files.REQUESTS) == _rows(numpy_folder, files.REQUESTS)


def test_the_digest_is_that_of_the_events(tmp_path: Path) -> None:
    digest = EventDigest()
    for event in ONE_REQUEST:
        digest(event)
    recorder = _record(tmp_path, ONE_REQUEST, _end())
    assert recorder.digest == digest.hexdigest()
    assert recorder.num_events == len(ONE_REQUEST)


# Many share an instant.
COARSE = [
    replace(event, time_ns=event.time_ns // (50 * MS))
    for event in fake_run(requests_per_device=1).events[:400]
    if not isinstance(event, IterationEnded)
]


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_digest_ignores_order_within_an_instant_and_nothing_else(random: object) -> None:
    shuffled = sorted(random.sample(COARSE, len(COARSE)), key=lambda event: event.time_ns)  # type: ignore[attr-defined]
    changed = [replace(COARSE[0], time_ns=COARSE[0].time_ns + 1), *COARSE[1:]]
    changed.sort(key=lambda event: event.time_ns)
    assert _digest_of(shuffled) == _digest_of(COARSE) != _digest_of(changed)


def _digest_of(events: list[Event]) -> str:
    digest = EventDigest()
    for event in events:
        digest(event)
    return digest.hexdigest()


def test_the_canonical_text_is_written_down() -> None:
    """A change here changes every digest that was ever published."""
    assert canonical_text(ONE_REQUEST[4]) == "03 SpanEnded(215, 7, 0, up_serialise, 150, 210, 340)\n"
    assert canonical_text(ONE_REQUEST[-1]) == "07 RequestEnded(340, 7, completed, 'length')\n"
    assert canonical_text(ONE_REQUEST[6]) == "04 TransferEnded(215, 7, 0, 'up', 200, 300, 340, 1, 2, 1)\n"
    assert canonical_text(Event(time_ns=3)) == "00 Event(3)\n"


def test_events_out_of_time_order_are_refused(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, CAST, spans=True)
    recorder(ONE_REQUEST[0])
    with pytest.raises(AssertionError, match="time order"):
        recorder(replace(ONE_REQUEST[1], time_ns=99))


def test_a_folder_that_is_no_run_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such run folder"):
        read_run(tmp_path / "missing")
    with pytest.raises(ScenarioError, match="is no run"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", [files.REQUESTS, files.DEVICES, files.ENVIRONMENT, files.SCENARIO])
@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_broken_run_folder_names_the_file(tmp_path: Path, name: str, damage: str) -> None:
    write_run(tmp_path, fake_run(requests_per_device=1))
    broken = tmp_path / name
    if damage == "gone":
        broken.unlink()
    else:
        broken.write_bytes(b"\xff" + broken.read_bytes()[:-9])
    with pytest.raises(ScenarioError, match="run folder is broken") as raised:
        read_run(tmp_path)
    assert raised.value.file == str(broken)


def test_an_interrupt_while_rows_are_prepared_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TableStream(tmp_path / "s.parquet", files.SPAN_SCHEMA, {"hop": HOPS}, rows_per_group=3)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    stream.append(0, 0, 0, 0, 1, 0)
    stream.append(1, 0, 0, 1, 2, 0)
    with monkeypatch.context() as patch:
        patch.setattr(TableStream, "_column", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.append(2, 0, 0, 2, 3, 0)
    stream.close()
    assert pq.read_table(tmp_path / "s.parquet")["request"].to_pylist() == [0, 1, 2]
