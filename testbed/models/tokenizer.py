"""Text to token ids and back, for a model folder's own tokenizer: Hugging Face tokenizer.json or SentencePiece.

Read with ``tokenizers`` and ``sentencepiece`` themselves: transformers' wrappers lose the BOS token and the leading
space of bare SentencePiece files. Neither torch nor transformers is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from testbed.core.errors import ModelError
from testbed.models.checkpoint import read_json
from testbed.models.source import TOKENIZER_FILES, ModelSource


class Tokenizer(Protocol):
    """What a workload needs of a tokenizer; ``bos_id`` and ``eos_id`` are None where the model names none."""

    bos_id: int | None
    eos_id: int | None
    vocab_size: int

    def encode(self, text: str, *, is_start: bool = True) -> list[int]:
        """Token ids of a prompt, with the BOS token where the model's convention has one.

        Unless it ``is_start``: then without any special token.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        ...


def load_tokenizer(source: ModelSource, path: str | Path | None = None) -> Tokenizer:
    """The model's tokenizer, or the one in ``path`` (a tokenizer.json, a SentencePiece .model, or a folder with one).

    Raises ModelError where there is none or it cannot be read.
    """
    file = source.tokenizer_file if path is None else _find(Path(path).expanduser())
    if file is None:
        raise ModelError(
            f"model {source.name} has no tokenizer",
            file=source.folder,
            allowed=f"one of {', '.join(TOKENIZER_FILES)}; or give a tokenizer file, or prompts as token ids",
        )
    config_path = file.with_name("tokenizer_config.json")
    config = read_json(config_path) if config_path.is_file() else {}
    kind = JsonTokenizer if file.suffix == ".json" else SentencePieceTokenizer
    tokenizer: Tokenizer = kind(file, config)
    if tokenizer.eos_id is None and source.stop_token_ids:
        tokenizer.eos_id = source.stop_token_ids[0]
    return tokenizer


class JsonTokenizer:
    """A Hugging Face tokenizer.json; ``add_bos_token`` of tokenizer_config.json overrides what the file adds."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer as Backend  # noqa: PLC0415 - only where a tokenizer is used

        try:
            self._backend = Backend.from_file(str(file))
        except Exception as error:  # the library raises nothing more specific
            raise ModelError(f"broken tokenizer: {error}", file=file) from error
        self.bos_id = self._special_id(config.get("bos_token"))
        self._add_bos = config.get("add_bos_token")
        self.eos_id = self._special_id(config.get("eos_token"))
        self.vocab_size = int(self._backend.get_vocab_size())

    def encode(self, text: str, *, is_start: bool = True) -> list[int]:
        """Ids with the special tokens that the file's post-processor adds, BOS as the config wants it."""
        ids: list[int] = list(self._backend.encode(text, add_special_tokens=is_start).ids)
        has_bos = bool(ids) and ids[0] == self.bos_id
        if not is_start or self.bos_id is None or self._add_bos is None or has_bos == self._add_bos:
            return ids
        return [self.bos_id, *ids] if self._add_bos else ids[1:]

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special tokens left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def _special_id(self, token: object) -> int | None:
        text = token.get("content") if isinstance(token, Mapping) else token
        found = self._backend.token_to_id(text) if isinstance(text, str) else None
        return None if found is None else int(found)


class SentencePieceTokenizer:
    """A SentencePiece model; adds BOS (Llama's convention) where the model has one, unless its config says no."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - only where a tokenizer is used

        try:
            self._backend = SentencePieceProcessor(model_file=str(file))
        except (RuntimeError, OSError) as error:
            raise ModelError(f"broken SentencePiece model: {error}", file=file) from error
        has_bos = self._backend.bos_id() >= 0 and config.get("add_bos_token") is not False
        self.bos_id = int(self._backend.bos_id()) if self._backend.bos_id() >= 0 else None
        self._prefix = [int(self._backend.bos_id())] if has_bos else []
        self.eos_id = int(self._backend.eos_id()) if self._backend.eos_id() >= 0 else None
        self.vocab_size = int(self._backend.vocab_size())

    def encode(self, text: str, *, is_start: bool = True) -> list[int]:
        """BOS, then the pieces of the text; the pieces alone where it is no start."""
        return (self._prefix if is_start else []) + [int(item) for item in self._backend.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; control tokens (BOS, EOS) have none."""
        return str(self._backend.decode([int(item) for item in ids if not self._backend.is_control(int(item))]))


def _find(path: Path) -> Path:
    """The tokenizer file at ``path`` or in that folder; a lone ``*.model`` file counts too."""
    if path.is_file():
        return path
    candidates = [path / name for name in TOKENIZER_FILES] + sorted(path.glob("*.model"))
    found = next((item for item in candidates if item.is_file()), None)
    if found is None:
        raise ModelError("no tokenizer here", value=str(path), allowed=[*TOKENIZER_FILES, "*.model"])
    return found
