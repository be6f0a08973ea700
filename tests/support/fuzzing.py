"""How much the fuzz tests try: a bounded number of examples, twenty times as many with HYPOTHESIS_PROFILE=long."""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner)
    ),
    max_leaves=8,
)
deep_json = st.integers(1, 60_000).flatmap(
    lambda depth: st.sampled_from([b"[" * depth + b"]" * depth, b"[" * depth, b'{"a":' * depth + b"1" + b"}" * depth])
)


def tries(examples: int) -> settings:
    """Settings for so many examples, times twenty in the long profile."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples * LONG, deadline=None, suppress_health_check=checks)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with one to three places changed: a byte flipped, some cut out, some put in, or the end cut off."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["flip", "flip", "delete", "insert", "cut"]))
        if how == "flip" and data:
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        elif how == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 9)) :]
        elif how == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=9)) + data[at:]
        elif how == "cut":
            data = data[:at]
    return data
