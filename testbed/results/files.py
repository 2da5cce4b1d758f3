"""What a run folder holds: the files' names and the tables' columns. docs/metrics.md defines each column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from testbed.core.events import HOPS

SCENARIO = "scenario.yaml"  # as resolved, written by whoever starts the run
ENVIRONMENT = "env.json"  # versions, seed, fingerprint, by the same
SUMMARY = "summary.json"
REPORT = "report.html"
REQUESTS = "requests.parquet"  # a row a request
SPANS = "spans.parquet"  # a row a stage of a request
TRANSFERS = "transfers.parquet"  # a row a message on a link
SERVERS = "servers.parquet"  # a row an iteration of a server
SERVER_TOTALS = "server_totals.parquet"  # a row a server
SERVER_STATES = "server_states.parquet"  # a row a change of a server, where servers are scaled or can fail
SCALE_EVENTS = "scale_events.parquet"  # a row an order of an autoscaler, beside it
LINKS = "links.parquet"  # a row a direction of a device's link
EDGES = "edges.parquet"  # a row a direction of an edge of the topology, where there is one
DEVICES = "devices.parquet"  # a row a device

Field = tuple[str, Any]  # name, Arrow type


def hop_column(hop: str) -> str:
    """The column of requests.parquet with the time a request spent in this hop."""
    return f"hop_{hop}_ns"


_INT = pa.int64()
_COUNT = pa.int32()
_TEXT = pa.string()
_REAL = pa.float64()
HOP_TYPE = pa.dictionary(pa.int8(), _TEXT)

REQUEST_SCHEMA = pa.schema(
    [
        ("request", _INT),
        ("group", _TEXT),
        ("device", _INT),
        ("device_kind", _TEXT),
        ("real", pa.bool_()),
        ("kind", _TEXT),
        ("session", _INT),
        ("turn", _COUNT),
        ("history_tokens", _INT),
        ("server", _INT),
        ("split", _INT),
        ("codec", _TEXT),
        ("codec_changes", _INT),
        ("outcome", _TEXT),
        ("reason", _TEXT),
        ("prompt_tokens", _INT),
        ("max_output_tokens", _INT),
        ("output_tokens", _INT),
        ("arrival_ns", _INT),
        ("admitted_ns", _INT),
        ("first_token_ns", _INT),
        ("last_token_ns", _INT),
        ("end_ns", _INT),
        ("ttft_s", _REAL),
        ("tpot_s", _REAL),
        ("e2e_s", _REAL),
        ("payload_bytes_up", _INT),
        ("payload_bytes_down", _INT),
        ("wire_bytes_up", _INT),
        ("wire_bytes_down", _INT),
        ("retransmissions", _INT),
        ("preemptions", _INT),
        ("swapped_bytes", _INT),
        ("recomputed_tokens", _INT),
        ("prefix_tokens", _INT),
        ("requeues", _INT),
        *((hop_column(hop), _INT) for hop in HOPS),
        ("tokens", pa.list_(_INT)),
        ("text", _TEXT),
        ("compared_tokens", _INT),
        ("agreeing_tokens", _INT),
        ("token_agreement", _REAL),
        ("max_logit_difference", _REAL),
    ]
)
SPAN_SCHEMA = pa.schema(
    [
        ("request", _INT),
        ("step", _COUNT),
        ("hop", HOP_TYPE),
        ("start_ns", _INT),
        ("end_ns", _INT),
        ("size_bytes", _INT),
    ]
)
TRANSFER_SCHEMA = pa.schema(
    [
        ("request", _INT),
        ("device", _INT),
        ("direction", pa.dictionary(pa.int8(), _TEXT)),
        ("codec", pa.dictionary(pa.int32(), _TEXT)),
        ("sent_ns", _INT),
        ("end_ns", _INT),
        ("payload_bytes", _INT),
        ("wire_bytes", _INT),
        ("packets", _COUNT),
        ("retransmissions", _COUNT),
        ("delivered", pa.bool_()),
    ]
)
SERVER_SCHEMA = pa.schema(
    [
        ("server", _INT),
        ("iteration", _INT),
        ("start_ns", _INT),
        ("end_ns", _INT),
        ("num_sequences", _INT),
        ("prefill_tokens", _INT),
        ("decode_tokens", _INT),
        ("kv_tokens", _INT),
        ("num_waiting", _INT),
    ]
)
SERVER_TOTAL_SCHEMA = pa.schema(
    [
        ("server", _INT),
        ("group", _TEXT),
        ("kind", _TEXT),
        ("iterations", _INT),
        ("busy_ns", _INT),
        ("energy_j", _REAL),
        ("peak_kv_bytes", _INT),
        ("preemptions", _INT),
        ("swapped_bytes", _INT),
        ("recomputed_tokens", _INT),
        ("prefix_tokens", _INT),
        ("rejected", _INT),
        ("starting_ns", _INT),
        ("up_ns", _INT),
        ("draining_ns", _INT),
        ("down_ns", _INT),
        ("failures", _INT),
        ("cost_usd", _REAL),
    ]
)
SERVER_STATE_SCHEMA = pa.schema([("time_ns", _INT), ("server", _INT), ("group", _TEXT), ("state", _TEXT)])
SCALE_EVENT_SCHEMA = pa.schema([("time_ns", _INT), ("group", _TEXT), ("from", _INT), ("to", _INT), ("why", _TEXT)])
LINK_SCHEMA = pa.schema(
    [
        ("device", _INT),
        ("group", _TEXT),
        ("direction", _TEXT),
        ("messages", _INT),
        ("delivered", _INT),
        ("lost", _INT),
        ("payload_bytes", _INT),
        ("lost_payload_bytes", _INT),
        ("wire_bytes", _INT),
        ("packets", _INT),
        ("retransmissions", _INT),
        ("dropped_packets", _INT),
        ("lost_packets", _INT),
        ("corrupt_packets", _INT),
        ("duplicate_packets", _INT),
        ("ack_bytes", _INT),
        ("busy_ns", _INT),
        ("peak_backlog_bytes", _INT),
    ]
)
EDGE_SCHEMA = pa.schema(
    [
        ("source", _TEXT),
        ("target", _TEXT),
        ("offered_packets", _INT),
        ("offered_bytes", _INT),
        ("carried_packets", _INT),
        ("carried_bytes", _INT),
        ("dropped_packets", _INT),
        ("lost_packets", _INT),
        ("failed_packets", _INT),
        ("waiting_bytes", _INT),
        ("peak_backlog_bytes", _INT),
        ("busy_ns", _INT),
        ("down_ns", _INT),
    ]
)
DEVICE_SCHEMA = pa.schema(
    [
        ("device", _INT),
        ("group", _TEXT),
        ("kind", _TEXT),
        ("real", pa.bool_()),
        ("requests", _INT),
        ("completed", _INT),
        ("oom", _INT),
        ("failed", _INT),
        ("link_timeout", _INT),
        ("authentication", _INT),
        ("battery", _INT),
        ("thermal", _INT),
        ("churn", _INT),
        ("server_failure", _INT),
        ("rejected", _INT),
        ("incomplete", _INT),
        ("busy_ns", _INT),
        ("transmit_ns", _INT),
        ("receive_ns", _INT),
        ("energy_j", _REAL),
        ("peak_memory_bytes", _INT),
        *((state, _REAL) for state in ("idle_j", "compute_j", "transmit_j", "receive_j")),
        # Null where nothing changes in a device by itself, it has no battery, or its heat is not modelled
        *((state, _REAL) for state in ("background_j", "sleep_j")),
        *((state, _INT) for state in ("asleep_ns", "off_ns", "throttled_ns", "departures")),
        *((state, _REAL) for state in ("battery_capacity_j", "battery_start_j", "battery_end_j", "charged_j")),
        ("cutoffs", _INT),
        ("max_temperature_c", _REAL),
        ("shutdowns", _INT),
    ]
)
