"""Every mistake in a scenario is one line: its file, its place, what was written, what is allowed; and nothing happens.

All of it through the command line, as a user meets it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from testbed.core.registry import ARRIVALS as ARRIVAL_LAWS
from testbed.core.registry import CODECS, POLICIES, ROUTERS, TRANSPORTS
from testbed.scenarios.catalogue import entries
from testbed.scenarios.schema import Group, Scenario
from tests.unit.tiny_scenario import GONE, TINY, call, files_below, tiny, write

LINK, DEVICE, ARRIVALS, PROMPTS = "fleet.0.link", "fleet.0.device", "workload.arrivals", "workload.prompts"


def pi(**changes: Any) -> dict[str, Any]:
    return {"use": "raspberry-pi-5", **changes}


def wifi(**changes: Any) -> dict[str, Any]:
    return {"use": "wifi", **changes}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str | Path) -> str:
    """The one line that a command refuses its input with; the working directory stays as it was."""
    before = files_below(Path.cwd())
    done = call(*arguments)
    assert done.error is None, repr(done.error)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    assert files_below(Path.cwd()) == before
    return done.err.removeprefix("error: ").rstrip("\n")


def refused_with(*changes: tuple[str, Any]) -> str:
    """As `validate` refuses TINY with these changes; the file's own name is there and taken off."""
    write(Path("case.yaml"), tiny(*changes))
    line = refused("validate", "case.yaml")
    assert line.startswith("case.yaml: ")
    return line.removeprefix("case.yaml: ")


def listed(names: Any) -> str:
    return "allowed: " + ", ".join(names)


def test_the_scenario_that_is_spoilt_here_is_valid() -> None:
    write(Path("case.yaml"), TINY)
    done = call("validate", "case.yaml")
    assert done.code == 0
    assert done.out.startswith(
        "tiny is valid: 2 devices (0 real), 1 server, 4 requests, model llama-3.2-1b with 16 lay"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: [1, 2", "not valid YAML: expected ',' or ']', but got '<stream end>' at line 1, column 12"),
        ("name: a\n  model: b\n", "not valid YAML: mapping values are not allowed here at line 2, column 8"),
        ("name: a\n\tmodel: b\n", "at line 2"),
        ("seed: 1\nname: a\nseed: 2\n", "not valid YAML: key 'seed' is given twice at line 3, column 1"),
        ("fleet:\n- {name: a, name: b}\n", "key 'name' is given twice at line 2, column 13"),
        ("- a\n- b\n", "a mapping (key: value) is expected at the top level, and there is a list"),
        ("just words\n", "a mapping (key: value) is expected at the top level, and there is a single value"),
        ("", "a mapping (key: value) is expected at the top level, and there is nothing"),
        ("name: a\n---\nname: b\n", "expected a single document in the stream, but found another document at line 2"),
        ("name: \x07\n", "not valid YAML: unacceptable character #x0007"),
        ("name: *nothing\n", "found undefined alias 'nothing' at line 1, column 7"),
        ("name: &a [*a]\n", "recursive"),
        ("name: " + "[" * 2000, "nested too deeply"),
        ("name: !!python/object:os.system x\n", "could not determine a constructor"),
        ("? [1]\n: 2\n", "a key must be a plain value at line 1"),
        ("1: 2\n", "1: a key must be a text"),
    ],
)
def test_text_that_is_no_mapping_in_yaml(text: str, problem: str) -> None:
    write(Path("case.yaml"), text)
    line = refused("validate", "case.yaml")
    assert line.startswith("case.yaml: ")
    assert problem in line


def test_a_file_that_is_no_text() -> None:
    Path("case.yaml").write_bytes(b"name: \xff\n")
    assert refused("validate", "case.yaml") == "case.yaml: not UTF-8 text: byte 6 is 0xff"


def test_scenarios_that_are_not_there() -> None:
    write(Path("smoky.yaml"), TINY)
    assert refused("run", "smokey.yaml") == "smokey.yaml: no such scenario file; did you mean 'smoky.yaml'?"
    assert refused("run", "far/smoke.yaml") == "far/smoke.yaml: no such scenario file; did you mean 'smoke'?"
    assert refused("run", "smoek") == (
        f"unknown scenario (got 'smoek'); {listed(entries('scenario'))}; did you mean 'smoke'?"
    )
    Path("folder").mkdir()
    assert refused("run", "folder") == "folder: a folder, not a scenario file"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("seeds", 3, f"seeds: unknown key; {listed(sorted(Scenario.model_fields))}; did you mean 'seed'?"),
        (
            "fleet.0.coumt",
            3,
            f"fleet[0].coumt: unknown key; {listed(sorted(Group.model_fields))}; did you mean 'count'?",
        ),
        ("record", {"span": True}, "record.span: unknown key; allowed: quality, spans; did you mean 'spans'?"),
        ("policy.splits", 3, "policy.splits: unknown key; allowed: codec, kind, mode, split; did you mean 'split'?"),
        (
            "fleet.0.policy",
            {"kind": "static", "split": 3, "codek": "int8"},
            "fleet[0].policy.codek: unknown key; allowed: codec, kind, mode, split; did you mean 'codec'?",
        ),
        ("policy", {"kind": "cloud-only", "split": 3}, "policy.split: unknown key; allowed: kind"),
        (
            f"{ARRIVALS}.rates",
            1,
            "workload.arrivals.rates: unknown key; allowed: kind, rate, rate_per_device, requests, "
            "requests_per_device, until; did you mean 'rate'?",
        ),
        (
            f"{PROMPTS}.length",
            {"law": "uniform", "low": 1, "hi": 2},
            "workload.prompts.length.hi: unknown key; allowed: high, law, low; did you mean 'high'?",
        ),
        (
            "workload.output_tokens",
            {"law": "fixed", "values": 2},
            "workload.output_tokens.values: unknown key; allowed: law, value; did you mean 'value'?",
        ),
    ],
)
def test_unknown_keys(path: str, value: Any, expected: str) -> None:
    assert refused_with((path, value)) == expected


def test_an_unknown_key_in_a_change_to_a_profile() -> None:
    line = refused_with((LINK, wifi(lost="2 %")))
    assert line.startswith(
        "fleet[0].link.lost: unknown key; allowed: corrupt, description, duplicate, header, jitter, "
    )
    assert line.endswith("did you mean 'loss'?")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (DEVICE, "raspberrypi-5", "fleet[0].device: unknown device (got 'raspberrypi-5'); {device}; 'raspberry-pi-5'"),
        (DEVICE, {"use": "pixel"}, "fleet[0].device.use: unknown device (got 'pixel'); {device}; 'pixel-8'"),
        (DEVICE, {"use": 5}, "fleet[0].device.use: a device's name is expected (got 5); {device}"),
        (LINK, "wify", "fleet[0].link: unknown link (got 'wify'); {link}; 'wifi'"),
        ("servers.0.server", "l5", "servers[0].server: unknown server (got 'l5'); {server}; 'l4'"),
        ("policy", "statik", "policy: unknown policy (got 'statik'); {policy}; 'static'"),
        ("policy.kind", "statik", "policy.kind: unknown policy (got 'statik'); {policy}; 'static'"),
        ("policy.codec", "int9", "policy.codec: unknown codec (got 'int9'); {codec}; 'int8'"),
        ("router", "least-load", "router.kind: unknown router (got 'least-load'); {router}; 'least-loaded'"),
        (
            "servers.0.scheduler",
            "fifi",
            "servers[0].scheduler.kind: unknown scheduler (got 'fifi'); "
            "allowed: earliest-deadline, fair, fifo, shortest-first; 'fifo'",
        ),
        (
            LINK,
            wifi(transport="selective-repeats"),
            "fleet[0].link.transport.kind: unknown transport (got 'selective-repeats'); "
            "{transport}; 'selective-repeat'",
        ),
        (
            f"{ARRIVALS}.kind",
            "poison",
            "workload.arrivals.kind: unknown arrivals (got 'poison'); {arrivals}; 'poisson'",
        ),
        (
            f"{PROMPTS}.kind",
            "txt",
            "workload.prompts.kind: not one of the choices (got 'txt'); allowed: text, ids, random, corpus; 'text'",
        ),
        (
            "workload.output_tokens.law",
            "fix",
            "workload.output_tokens.law: not one of the choices (got 'fix'); "
            "allowed: fixed, uniform, lognormal, empirical, geometric; 'fixed'",
        ),
        (
            LINK,
            wifi(jitter={"law": "gama", "mean": "1 ms"}),
            "fleet[0].link.jitter.law: not one of the choices (got 'gama'); "
            "allowed: constant, uniform, exponential, normal, lognormal, gamma, pareto, empirical; 'gamma'",
        ),
        (
            "fleet.0.compute",
            "model",
            "fleet[0].compute: not one of the choices (got 'model'); allowed: real, modelled; 'modelled'",
        ),
        (
            "dtype",
            "float8",
            "dtype: not one of the choices (got 'float8'); allowed: float32, bfloat16, float16; 'float32'",
        ),
        (
            "execution",
            {"executor": "rey"},
            "execution.executor: not one of the choices (got 'rey'); allowed: local, ray; 'ray'",
        ),
    ],
)
def test_unknown_names(path: str, value: Any, expected: str) -> None:
    names = {kind: listed(entries(kind)) for kind in ("device", "server", "link")}
    names |= {"policy": listed(sorted(POLICIES)), "codec": listed(sorted(CODECS))}
    names["router"] = listed(sorted(ROUTERS))
    names["transport"] = listed(sorted(TRANSPORTS))
    names["arrivals"] = listed(sorted(ARRIVAL_LAWS))
    text = expected.format(**names) if "{" in expected else expected
    head, quote, nearest = text.rpartition("; '")
    assert refused_with((path, value)) == (f"{head}; did you mean '{nearest}?" if quote else text)


def test_an_unknown_model() -> None:
    line = refused_with(("model", "llama-3.2-1bb"))
    assert line.startswith("model: unknown model (got 'llama-3.2-1bb'); allowed: pebble, ")
    assert line.endswith("did you mean 'llama-3.2-1b'?")


TIME = "a number with ns, us, ms, s, min, h or d, such as 15 ms"
BIT_RATE = "a number with bit/s, bps or B/s, after k, M, G, T or P or alone, such as 20 Mbit/s"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            LINK,
            wifi(rate_up="20 Mbits"),
            f"fleet[0].link.rate_up: unknown unit 'Mbits' for a bit rate (got '20 Mbits'); allowed: {BIT_RATE}; "
            "did you mean 'Mbit/s'?",
        ),
        (
            LINK,
            wifi(rate_up="20 ms"),
            f"fleet[0].link.rate_up: unknown unit 'ms' for a bit rate (got '20 ms'); allowed: {BIT_RATE}",
        ),
        (LINK, wifi(rate_up=20), f"fleet[0].link.rate_up: a bit rate needs a unit (got 20); allowed: {BIT_RATE}"),
        (LINK, wifi(rate_up="20"), f"fleet[0].link.rate_up: a bit rate needs a unit (got '20'); allowed: {BIT_RATE}"),
        ("stop_at", 5, f"stop_at: a time needs a unit (got 5); allowed: {TIME}"),
        ("stop_at", "soon", f"stop_at: not a time (got 'soon'); allowed: {TIME}"),
        ("slo", {"ttft": 0.5, "tpot": "1 s"}, f"slo.ttft: a time needs a unit (got 0.5); allowed: {TIME}"),
        (
            ARRIVALS,
            {"kind": "times", "times": ["1 s", 2]},
            f"workload.arrivals.times[1]: a time needs a unit (got 2); allowed: {TIME}",
        ),
        (
            LINK,
            wifi(loss=math.nan),
            "fleet[0].link.loss: not a ratio (got nan); allowed: a number, alone or with %, such as 0.02 or 2 %",
        ),
    ],
)
def test_wrong_and_missing_units(path: str, value: Any, expected: str) -> None:
    assert refused_with((path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("fleet.0.count", 0, "fleet[0].count: too small (got 0); allowed: at least 1"),
        ("fleet.0.count", -3, "fleet[0].count: too small (got -3); allowed: at least 1"),
        ("fleet.0.count", 2.5, "fleet[0].count: a whole number is expected (got 2.5)"),
        ("fleet.0.count", True, "fleet[0].count: a whole number is expected (got True)"),
        ("fleet.0.count", "2", "fleet[0].count: a whole number is expected (got '2')"),
        ("seed", -1, "seed: too small (got -1); allowed: at least 0"),
        ("seed", 2**63, f"seed: too large (got {2**63}); allowed: less than {2**63}"),
        ("policy.split", -1, "policy.split: too small (got -1); allowed: at least 0"),
        ("policy.split", "four", "policy.split: a whole number is expected (got 'four')"),
        ("servers.0.max_batch", 0, "servers[0].max_batch: too small (got 0); allowed: at least 1"),
        ("execution", {"edge_hosts": 0}, "execution.edge_hosts: too small (got 0); allowed: at least 1"),
        ("sampling", {"temperature": -1}, "sampling.temperature: too small (got -1); allowed: at least 0.0"),
        (
            "sampling",
            {"temperature": math.inf},
            "sampling.temperature: a finite number is expected (got inf)",
        ),
        ("sampling", {"top_p": 1.5}, "sampling.top_p: too large (got 1.5); allowed: at most 1.0"),
        (
            f"{ARRIVALS}.rate_per_device",
            "0 /s",
            "workload.arrivals.rate_per_device: rate in time too small (got '0 /s'); allowed: more than 0",
        ),
        (
            f"{ARRIVALS}.rate_per_device",
            "-1 /s",
            "workload.arrivals.rate_per_device: rate in time too small (got '-1 /s'); allowed: more than 0",
        ),
        (
            f"{ARRIVALS}.rate_per_device",
            "1e-200 /s",
            "workload.arrivals.rate_per_device: rate in time too small (got '1e-200 /s'); allowed: at least 1e-9 /s",
        ),
        (
            f"{ARRIVALS}.requests_per_device",
            0,
            "workload.arrivals.requests_per_device: too small (got 0); allowed: at least 1",
        ),
        ("workload.output_tokens.value", 0, "workload.output_tokens.value: too small (got 0); allowed: at least 1"),
        (
            "workload.output_tokens.value",
            10**30,
            f"workload.output_tokens.value: too large (got {10**30}); allowed: less than 1000000000",
        ),
        (
            "workload.output_tokens",
            {"law": "uniform", "low": 4, "high": 2},
            "workload.output_tokens.high: high is below low (got 2); allowed: at least 4",
        ),
        (
            "workload.output_tokens",
            {"law": "empirical", "values": []},
            "workload.output_tokens.values: too few entries; allowed: at least 1",
        ),
        (
            ARRIVALS,
            {"kind": "times", "times": []},
            "workload.arrivals.times: too few entries; allowed: at least 1",
        ),
        (
            ARRIVALS,
            {"kind": "times", "times": ["-1 s"]},
            "workload.arrivals.times[0]: time too small (got '-1 s'); allowed: at least 0",
        ),
        (LINK, wifi(loss=1.5), "fleet[0].link.loss: ratio too large (got 1.5); allowed: at most 0.999"),
        (LINK, wifi(loss="150 %"), "fleet[0].link.loss: ratio too large (got '150 %'); allowed: at most 0.999"),
        (LINK, wifi(loss=-0.1), "fleet[0].link.loss: ratio too small (got -0.1); allowed: at least 0"),
        (LINK, wifi(rate_up=0), "fleet[0].link.rate_up: bit rate too small (got 0); allowed: more than 0"),
        (
            LINK,
            wifi(rate_up="0.2 bit/s"),
            "fleet[0].link.rate_up: bit rate too small (got '0.2 bit/s'); allowed: more than 0",
        ),
        (
            LINK,
            wifi(rate_up="1e300 bit/s"),
            "fleet[0].link.rate_up: bit rate too large (got '1e300 bit/s'); allowed: at most 1000 Pbit/s",
        ),
        (
            LINK,
            wifi(propagation_delay="-1 ms"),
            "fleet[0].link.propagation_delay: time too small (got '-1 ms'); allowed: at least 0",
        ),
        (
            LINK,
            wifi(mtu="40 B"),
            "fleet[0].link.header: headers leave no room in a packet (got '40 B'); allowed: less than the mtu of 40 B",
        ),
        (
            LINK,
            wifi(queue="100 B"),
            "fleet[0].link.queue: the queue can't hold one packet (got '100 B'); allowed: at least the mtu of 1500 B",
        ),
        (
            LINK,
            wifi(jitter={"law": "gamma", "mean": "1 ms"}),
            "fleet[0].link.jitter.std: jitter law 'gamma' needs a mean and a std (got '0 s'); allowed: more than 0",
        ),
        (
            LINK,
            wifi(jitter={"law": "constant", "mean": "1 ms", "std": "2 ms"}),
            "fleet[0].link.jitter.std: jitter law 'constant' has no std (got '2.00 ms'); allowed: 0, or no std",
        ),
        (
            DEVICE,
            pi(active_power="1 W"),
            "fleet[0].device.active_power: less than when idle (got '1 W'); allowed: at least the idle_power of 3.3 W",
        ),
        ("stop_at", "0 s", "stop_at: time too small (got '0 s'); allowed: more than 0"),
        ("stop_at", "0.1 ns", "stop_at: time too small (got '0.1 ns'); allowed: more than 0"),
        ("stop_at", "40000 d", "stop_at: time too large (got '40000 d'); allowed: at most 36500 d"),
        ("fleet", [], "fleet: too few entries; allowed: at least 1"),
    ],
)
def test_numbers_that_make_no_sense(path: str, value: Any, expected: str) -> None:
    assert refused_with((path, value)) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", GONE, "name: required key is missing"),
        ("seed", GONE, "seed: required key is missing"),
        ("policy", GONE, "policy: required key is missing"),
        ("policy.split", GONE, "policy.split: required key is missing"),
        ("policy.kind", GONE, f"policy.kind: required key is missing; {listed(sorted(POLICIES))}"),
        ("workload", GONE, "workload: required key is missing; allowed: one here, or one in every group"),
        (
            f"{ARRIVALS}.kind",
            GONE,
            f"workload.arrivals.kind: required key is missing; {listed(sorted(ARRIVAL_LAWS))}",
        ),
        ("fleet.0.name", GONE, "fleet[0].name: required key is missing"),
        (
            LINK,
            {"name": "wifi"},
            "fleet[0].link.rate_up: required key is missing; "
            "allowed: every number of a link; or NAME or {use: NAME, rate_up: ...} for one of the catalogue",
        ),
        ("servers", None, "servers: a list is expected, and there is nothing"),
        (
            "policy",
            None,
            "policy: a policy's name, or a mapping with its kind, is expected; " + listed(sorted(POLICIES)),
        ),
        ("fleet", {}, "fleet: a list is expected"),
        (
            "fleet.0",
            "pis",
            f"fleet[0]: a mapping is expected (got 'pis'); allowed: the keys {', '.join(sorted(Group.model_fields))}",
        ),
        ("workload.output_tokens", 5, "workload.output_tokens: a mapping is expected (got 5); allowed: the keys law"),
        (
            "name",
            "a b",
            "name: not a name (got 'a b'); allowed: letters, digits, '.', '_' and '-' after a first letter or digit",
        ),
        ("description", 5, "description: a text is expected (got 5)"),
        ("record", {"spans": "maybe"}, "record.spans: true or false is expected (got 'maybe')"),
        ("model", "", "model: the text is empty (got ''); allowed: at least 1 character"),
        ("servers", [TINY["servers"][0]] * 2, "servers[1].name: an earlier entry has this name (got 'cloud')"),
    ],
)
def test_values_of_another_kind_and_missing_ones(path: str, value: Any, expected: str) -> None:
    assert refused_with((path, value)) == expected


SIZES = [{"value": "8 GB", "share": 0.9}, {"value": "3 GB", "share": 0.1}]
OTHERS = {"kind": "random", "states": [{"value": "3 GB", "mean": "1 s"}, {"value": "5 GB", "mean": "1 s"}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("policy.split", 17)], "policy.split: the model has 16 layers (got 17); allowed: 0 to 16"),
        (
            [("fleet.0.policy", {"kind": "static", "split": 99})],
            "fleet[0].policy.split: the model has 16 layers (got 99); allowed: 0 to 16",
        ),
        (
            [("servers", GONE)],
            "policy.split: layers behind the cut need a server, and there is none (got 4); "
            "allowed: 16, or an entry under servers",
        ),
        (
            [("servers", []), ("policy", "cloud-only")],
            "policy: layers behind the cut need a server, and there is none (got 0); "
            "allowed: 16, or an entry under servers",
        ),
        (
            [(DEVICE, pi(memory="1 GB"))],
            "policy.split: group pis: the reserved memory of a raspberry-pi-5 leaves none for 4 layers (got 4); "
            "allowed: 0",
        ),
        (
            [(DEVICE, pi(memory="1.1 GB"))],
            "policy.split: group pis: a raspberry-pi-5 has 100 MB free, and the front of 4 layers takes 2.02 GB "
            "(got 4); allowed: 0",
        ),
        (
            [("policy", "edge-only"), (DEVICE, pi(memory="4 GB"))],
            "policy: group pis: a raspberry-pi-5 has 3.00 GB free, and the front of 16 layers takes 4.94 GB "
            "(got 16); allowed: 0 to 8, or weights of at most 16 bits",
        ),
        (
            [("policy", "edge-only"), ("fleet.0.vary", {"memory": SIZES})],
            "policy: group pis: a raspberry-pi-5 has 2.00 GB free, and the front of 16 layers takes 4.94 GB "
            "(got 16); allowed: 0 to 3, or weights of at most 8 bits",
        ),
        (
            [("policy", "edge-only"), ("fleet.0.background", {"memory": OTHERS})],
            "policy: group pis: a raspberry-pi-5 has 4.00 GB free, and the front of 16 layers takes 4.94 GB "
            "(got 16); allowed: 0 to 12, or weights of at most 16 bits",
        ),
        (
            [("fleet.0.churn", {"kind": "trace", "file": "/no/such.csv", "initial": "present"})],
            "fleet[0].churn: /no/such.csv: no such file",
        ),
        (
            [("servers.0.server", {"use": "l4", "memory": "2 GB"})],
            "servers[0].server: l4 has 500 MB free, and the layers behind the cut take 3.97 GB (got 'l4'); "
            "allowed: a server with more memory, or a later cut",
        ),
        (
            [("fleet.0.compute", "real")],
            "fleet[0].compute: model llama-3.2-1b is known by its shape only and has no weights to compute with "
            "(got 'real'); allowed: modelled, or another model: pebble, a folder or a Hugging Face id",
        ),
        (
            [(ARRIVALS, {"kind": "times", "times": ["36500 d"]}), ("stop_at", "36500.5 d")],
            "stop_at: time too large (got '36500.5 d'); allowed: at most 36500 d",
        ),
    ],
)
def test_what_model_device_or_server_cannot_do(changes: list[tuple[str, Any]], expected: str) -> None:
    assert refused_with(*changes) == expected


@pytest.mark.parametrize("command", ["run", "validate"])
def test_run_refuses_as_validate_does_and_makes_no_folder(command: str) -> None:
    write(Path("case.yaml"), tiny(("policy.split", 17)))
    assert (
        refused(command, "case.yaml") == "case.yaml: policy.split: the model has 16 layers (got 17); allowed: 0 to 16"
    )
    write(Path("case.yaml"), tiny(("fleet.0.link", "wify")))
    assert "unknown link" in refused(command, "case.yaml")


def test_a_broken_entry_of_the_users_own_catalogue_is_said_of_its_file() -> None:
    folder = Path("network_models/links")
    folder.mkdir(parents=True)
    write(folder / "mine.yaml", "rate_up: 3\n")
    write(Path("case.yaml"), tiny(("fleet.0.link", "mine")))
    assert refused("validate", "case.yaml").startswith(f"{folder.resolve()}/mine.yaml: rate_up: a bit rate needs a uni")
    write(folder / "mine.yaml", "rate_up: [\n")
    assert refused("validate", "case.yaml").startswith(f"{folder.resolve()}/mine.yaml: not valid YAML: ")
