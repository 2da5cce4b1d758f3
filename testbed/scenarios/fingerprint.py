"""A short name for what a scenario means: equal for equal meaning, whatever the file's layout."""

from __future__ import annotations

import hashlib
import json

from testbed.scenarios.schema import Scenario

# These say where and how a run is computed or described, not what happens in it.
_WITHOUT_EFFECT = ("description", "execution", "record")


def fingerprint(scenario: Scenario) -> str:
    """Twelve hex digits of the SHA-256 of the resolved scenario, `execution`, `record` and texts left out."""
    data = scenario.as_data()
    meaning = {key: value for key, value in data.items() if key not in _WITHOUT_EFFECT}
    meaning["costs"] = data["execution"]["costs"]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]
