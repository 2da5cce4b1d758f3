"""Hidden states of every kind a codec may meet, and TAB-Q's settings, for tests with hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from testbed.codecs.reference import TabqSetting

COLUMNS = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 511, 512, 1000, 4096, 8191, 8192]))
SPECIALS = np.array(
    [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-40, 1.2e-38, 3.4e38, -3.4e38, 1.0, -1.0, 2.0**-118],
    np.float32,
)
TAU_BITS = [0, 1, int(np.float32(0.7).view(np.uint32)), int(np.float32(3).view(np.uint32)), 0x7F800000]


@st.composite
def states(draw):
    """Rows of different kinds, with special values sprinkled in."""
    num_tokens, hidden_size = draw(st.integers(0, 5)), draw(COLUMNS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = np.empty((num_tokens, hidden_size), np.float32)
    for row in range(num_tokens):
        kind = draw(st.sampled_from(["normal", "tiny", "huge", "zero", "equal", "bits", "heavy"]))
        normal = rng.standard_normal(hidden_size)
        rows[row] = {
            "normal": normal,
            "tiny": normal * 1e-38,
            "huge": np.clip(normal * 1e38, -3e38, 3e38),
            "zero": normal * 0,
            "equal": np.full(hidden_size, normal[0]),
            "bits": rng.integers(0, 2**32, hidden_size, dtype=np.uint64).astype(np.uint32).view(np.float32),
            "heavy": normal**7,
        }[kind]
        if draw(st.booleans()):
            rows[row, rng.integers(0, hidden_size, 3)] = rng.choice(SPECIALS, 3)
    return rows


tabq_settings = st.builds(
    lambda test, delta, widths, requantise: TabqSetting(
        test, float(delta * (60 if test == 1 else 1)), min(widths), max(widths), requantise
    ),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0.0, 0.01, 0.04, 0.1, 0.2, 0.35, 1.0, 5.0]),
    st.tuples(st.integers(2, 8), st.integers(2, 8)),
    st.booleans(),
)
