"""JSON Schema of a scenario file, for editors."""

from __future__ import annotations

import json

from testbed.scenarios.catalogue import entries
from testbed.scenarios.schema import Scenario


def scenario_json_schema() -> str:
    """JSON Schema of a scenario file for editors: catalogue names may stand where a profile is described."""
    schema = Scenario.model_json_schema()
    for model, key, kind in (("Group", "device", "device"), ("Group", "link", "link"), ("Servers", "server", "server")):
        described = schema["$defs"][model]["properties"][key]
        use = {"type": "object", "required": ["use"], "properties": {"use": {"enum": list(entries(kind))}}}
        schema["$defs"][model]["properties"][key] = {
            "anyOf": [{"type": "string", "examples": list(entries(kind))}, use, described]
        }
    return json.dumps(schema, indent=2, sort_keys=True)
