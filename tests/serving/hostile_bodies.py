"""Bodies of requests that are nearly right, and such as are not at all, for Hypothesis to draw from."""

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from serving_stack import KNOWN

SECRET = 727_272_727_272  # an entity that nothing but a body may name
EXAMPLES = 150
TIMES = st.sampled_from(
    ["2018-06-01T12:00:00Z", "2018-06-01T12:00:00", "", "now", "9999-12-31T23:59:59-14:00", "\ud7ff"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=20),
    TIMES,
    st.sampled_from([SECRET, str(SECRET), KNOWN, 5, 1 << 63, -(1 << 63), "x" * 200_000]),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = {"customer_id": "INT64", "terminal_id": "INT64", "amount_cents": "INT64", "request_time": "BYTES"}
GOOD = {"customer_id": SECRET, "terminal_id": 5, "amount_cents": 1250, "request_time": "2018-06-01T12:00:00Z"}
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys((*FIELDS, "extra"), ANYTHING))
NEARLY = st.dictionaries(st.sampled_from([*FIELDS]), ANYTHING, min_size=1, max_size=2).map(
    lambda wrong: {"instances": [GOOD, GOOD | wrong]}
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*FIELDS, "extra"]) | ANYTHING,
        "datatype": st.sampled_from(["INT64", "BYTES", "FP64"]) | ANYTHING,
        "shape": st.lists(st.integers(-1, 3) | st.just(1 << 62), max_size=3) | ANYTHING,
        "data": st.lists(ANYTHING, max_size=3) | ANYTHING,
        "parameters": ANYTHING,
    },
)
OF_V1 = st.fixed_dictionaries(
    {}, optional={"instances": st.lists(ROWS, max_size=3) | ANYTHING, "request_id": ANYTHING}
)
OF_V2 = st.fixed_dictionaries(
    {}, optional={"inputs": st.lists(TENSORS, max_size=5) | ANYTHING, "id": ANYTHING, "outputs": ANYTHING}
)


def text_of(document: Any) -> bytes:
    """Return it as JSON, also what JSON has no number for, as many a writer does."""
    return json.dumps(document).encode()


BODIES = st.one_of(st.binary(max_size=200), *(each.map(text_of) for each in (NEARLY, OF_V1, OF_V2, ANYTHING)))
MANGLED = st.builds(
    lambda body, at, byte: body[: at % (len(body) + 1)] + byte + body[at % (len(body) + 1) :],
    st.one_of(each.map(text_of) for each in (NEARLY, OF_V1, OF_V2)),
    st.integers(0, 1 << 20),
    st.binary(max_size=3),
)
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
