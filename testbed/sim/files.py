"""Files of prompts. Every complaint has the file and its line."""

from __future__ import annotations

import json

from testbed.core.errors import ScenarioError
from testbed.scenarios.text_file import read_text


def _lines(file: str) -> list[str]:
    """Lines as editors count them: other separators that Unicode has are part of a line."""
    return read_text(file).split("\n")


def read_text_prompts(file: str) -> list[str]:
    """The non-empty lines."""
    texts = [line.strip() for line in _lines(file) if line.strip()]
    if not texts:
        raise ScenarioError("the file has no prompt", file=file)
    return texts


def read_id_prompts(file: str) -> list[list[int]]:
    """A JSON list of token ids, or a mapping with `ids`, a line."""
    prompts = [_ids(line, file, number) for number, line in enumerate(_lines(file), 1) if line.strip()]
    if not prompts:
        raise ScenarioError("the file has no prompt", file=file)
    return prompts


def _ids(line: str, file: str, number: int) -> list[int]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"line {number} is not JSON: {error.msg}", file=file, value=line[:80]) from None
    ids = data.get("ids") if isinstance(data, dict) else data
    if not isinstance(ids, list) or not ids or not all(type(item) is int for item in ids):
        raise ScenarioError(
            f"line {number} is no prompt", file=file, value=line[:80], allowed='[1, 2, 3] or {"ids": [1, 2, 3]}'
        )
    return ids
