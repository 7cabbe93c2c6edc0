"""Why a request has no score, in words that a machine can read: the `reason` of an answer and of a metric."""

import enum
from collections.abc import Sequence

from lockstep.errors import BadInput, Transient


class Reason(enum.StrEnum):
    """Reasons of refused requests.

    BAD_REQUEST, TOO_LARGE, TOO_SLOW: the request does not fit, is larger than is read, or did not arrive within its budget.
    CALLER_GONE: it did not arrive, and there is nobody to tell.
    ROW_REJECTED: the contract asks for a value that a row does not have; the answer lists such rows.
    STORE_TIMEOUT, STORE_UNAVAILABLE, STORE_CIRCUIT_OPEN: the online store did not answer within its share of the budget, or at
        all, or has not lately and is not asked.
    STORE_EMPTY: it answers, and nothing was ever brought online there: it was lost, or nothing was materialized yet.
    STALE_FEATURES: a view is older than its hard objective, and there is no fallback model that does without it.
    PREDICTOR_TIMEOUT, PREDICTOR_UNAVAILABLE, PREDICTOR_CIRCUIT_OPEN: as of the store.
    PREDICTOR_FAILED: it answered what is no score.
    CONTRACT_MISMATCH: it serves another model than the one that this contract was trained into.
    NOT_FOUND, WRONG_METHOD: nothing is there, or it is asked another way.
    FAILED: something here is wrong; the log has it.
    """

    BAD_REQUEST = "bad_request"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    CALLER_GONE = "caller_gone"
    ROW_REJECTED = "row_rejected"
    STORE_TIMEOUT = "store_timeout"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_CIRCUIT_OPEN = "store_circuit_open"
    STORE_EMPTY = "store_empty"
    STALE_FEATURES = "stale_features"
    PREDICTOR_TIMEOUT = "predictor_timeout"
    PREDICTOR_UNAVAILABLE = "predictor_unavailable"
    PREDICTOR_CIRCUIT_OPEN = "predictor_circuit_open"
    PREDICTOR_FAILED = "predictor_failed"
    CONTRACT_MISMATCH = "contract_mismatch"
    NOT_FOUND = "not_found"
    WRONG_METHOD = "wrong_method"
    FAILED = "failed"


class RowRejected(BadInput):
    """Features that the contract asks for have no value, so there is no score (answered 422).

    Attributes:
        rows: the numbers of the rows that are rejected, from 0 in the request: all of them.
    """

    def __init__(self, message: str, rows: Sequence[int], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rows = rows


class TooLarge(BadInput):
    """A body is larger than is read (answered 413)."""


class TooSlow(BadInput):
    """A body did not arrive within the request's budget (answered 408)."""


class CallerGone(BadInput):
    """Who asked went away before all of the request had come; the answer reaches nobody."""


class Unavailable(Transient):
    """There is no score now (answered 503).

    Attributes:
        reason: why.
        retry_after: in how many seconds it is worth asking again.
        counts: whether it speaks against what is behind us.
        detail: what whoever runs this should know and no caller has to.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        hint: str = "",
        retry_after: float = 1.0,
        counts: bool = True,
        detail: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retry_after = retry_after
        self.counts = counts
        self.detail = detail
