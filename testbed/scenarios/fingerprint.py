"""A short name for what a scenario means: equal for equal meaning, whatever the file's layout."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from testbed.scenarios.schema import Scenario

# These say where and how a run is computed, not what happens in it.
_WITHOUT_EFFECT = ("execution", "record")
_TEXTS = ("description", "sources", "source")  # of the scenario, its profiles and its topology


def fingerprint(scenario: Scenario) -> str:
    """Twelve hex digits of the SHA-256 of the resolved scenario, `execution`, `record` and texts left out."""
    data = scenario.as_data()
    meaning = {key: _without_texts(value) for key, value in data.items() if key not in (*_WITHOUT_EFFECT, *_TEXTS)}
    meaning["costs"] = data["execution"]["costs"]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]


def _without_texts(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_texts(item) for key, item in node.items() if key not in _TEXTS}
    return [_without_texts(item) for item in node] if isinstance(node, list) else node
