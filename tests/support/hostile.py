"""Values that a record of ours never has, for whoever reads it back."""

from __future__ import annotations

from hypothesis import strategies as st

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=30),
    st.sampled_from(["\r\nX: y", "\0", "a" * 100_000, "€", [], {}, [1, "udp", "x", 0, 0], [[[[]]]], {"a": {}}]),
)
