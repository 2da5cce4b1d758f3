"""The errors a user can cause, each as one line that says where, what, what is allowed and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TestbedError(Exception):
    """Base of every error this package raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class ScenarioError(TestbedError):
    """The user's input is wrong; nothing was run.

    The message reads ``file: path: problem (got value); allowed: ...; did you mean ...?``, as far as known.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        path: str | None = None,
        value: object = None,
        allowed: str | Sequence[str] | None = None,
        nearest: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.path = path
        self.value = value
        self.allowed = allowed
        self.nearest = nearest
        super().__init__(problem)

    def located(self, *, file: str | Path | None = None, path: str | None = None) -> ScenarioError:
        """The same error with the file or YAML path filled in where it had none."""
        return ScenarioError(
            self.problem,
            file=self.file if self.file is not None else file,
            path=self.path if self.path is not None else path,
            value=self.value,
            allowed=self.allowed,
            nearest=self.nearest,
        )

    def below(self, path: str) -> ScenarioError:
        """The same error, said of something that stands at `path` in a larger whole."""
        inner = path if self.path is None else f"{path}.{self.path}"
        return ScenarioError(
            self.problem, file=self.file, path=inner, value=self.value, allowed=self.allowed, nearest=self.nearest
        )

    def __str__(self) -> str:
        parts = [part for part in (self.file, self.path) if part]
        text = ": ".join([*parts, self.problem])
        if self.value is not None:
            text += f" (got {self.value!r})"
        if self.allowed is not None:
            listed = self.allowed if isinstance(self.allowed, str) else ", ".join(self.allowed)
            text += f"; allowed: {listed}"
        if self.nearest is not None:
            text += f"; did you mean {self.nearest!r}?"
        return text


class ModelError(ScenarioError):
    """A model folder, file or family that can't be used."""


class HostFailedError(TestbedError):
    """A host that runs shards was lost (its actor, node or process died) and the run could not go on without it."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one, or None when none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None
