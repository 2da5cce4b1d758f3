"""A short name for what a scenario means: equal for equal meaning, whatever the file's layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from testbed.scenarios.schema import Scenario

# These say where and how a run is computed, not what happens in it.
_WITHOUT_EFFECT = ("execution", "record")
# Absent means as before there was such a key, so that old names stay.
_SINCE_FIRST = ("weights", "kv", "security", "calibration", "payload_law")
_AS_EVER = ("mode", "stateful")  # of a policy: it means what policies meant before they had the key
_OF_SEALING = ("aes_gcm_rate", "chacha20_rate")  # of a profile: nothing to a run that seals nothing
_TEXTS = ("description", "sources")  # of the scenario and of its profiles


def fingerprint(scenario: Scenario) -> str:
    """Twelve hex digits of the SHA-256 of the resolved scenario, `execution`, `record` and texts left out."""
    data = scenario.as_data()
    meaning = {key: value for key, value in data.items() if key not in _WITHOUT_EFFECT}
    for key in _SINCE_FIRST:
        if meaning[key] is None:
            del meaning[key]
    meaning["costs"] = data["execution"]["costs"]
    left_out = _TEXTS if scenario.seal != "none" else (*_TEXTS, *_OF_SEALING)
    return hashlib.sha256(json.dumps(_without(left_out, meaning), sort_keys=True).encode()).hexdigest()[:12]


def _without(keys: Sequence[str], node: Any) -> Any:
    if isinstance(node, dict):
        kept = {key: item for key, item in node.items() if key not in keys and (key, item) != _AS_EVER}
        return {key: _without(keys, item) for key, item in kept.items()}
    return [_without(keys, item) for item in node] if isinstance(node, list) else node
