"""The look of figures in files of their own; those inside a report take its page's colours."""

from __future__ import annotations

from typing import Any

FIGURE_STYLE: Any = {  # Matplotlib types its keys one by one, and by version
    "svg.hashsalt": "split-testbed",
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#d5d9e0",
}
