"""How the next token is chosen from logits; a plain value that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.core.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Greedy by default; with ``greedy=False`` temperature, then top-k, then top-p, as generate() applies them.

    ``top_k=0`` and ``top_p=1.0`` switch those filters off.
    """

    greedy: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def checked(self) -> SamplingConfig:
        """The config itself, or a ScenarioError naming the value out of range."""
        if not self.temperature > 0:
            raise ScenarioError("temperature out of range", path="temperature", value=self.temperature, allowed="> 0")
        if self.top_k < 0:
            raise ScenarioError("top_k out of range", path="top_k", value=self.top_k, allowed="0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ScenarioError("top_p out of range", path="top_p", value=self.top_p, allowed="above 0, up to 1 (off)")
        return self
