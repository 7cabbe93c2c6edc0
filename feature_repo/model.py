"""How the fraud model is made: which payments, which features, which estimator."""

from typing import TYPE_CHECKING

from feature_repo.services import fraud_v2, fraud_v2_fallback
from lockstep.views import ModelRecipe, Protocol, Thresholds, Words, days

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

SPINE = """
    SELECT
        transactions.customer_id,
        transactions.terminal_id,
        transactions.tx_datetime AS event_timestamp,
        transactions.amount_cents,
        labels.tx_fraud,
        labels.tx_fraud_scenario,
        labels.labelled_at
    FROM transactions
    JOIN labels USING (transaction_id)
    WHERE transactions.tx_datetime >= $start AND transactions.tx_datetime < $end
      AND labels.tx_datetime >= $start AND labels.tx_datetime < $end
      AND transactions.ingested_at <= $known_at AND labels.labelled_at <= $known_at
"""

REQUESTS = """
    SELECT customer_id, terminal_id, amount_cents
    FROM transactions
    ORDER BY tx_datetime DESC, transaction_id DESC
    LIMIT $rows
"""


def make_estimator() -> "HistGradientBoostingClassifier":
    """Return an unfitted classifier; NaN (a card or terminal never seen) is a value of its own to it."""
    # Every step loads the definitions and one of them trains: scikit-learn's import takes 2 s.
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return HistGradientBoostingClassifier(
        max_iter=200,
        max_leaf_nodes=15,
        learning_rate=0.05,
        l2_regularization=1.0,
        early_stopping=False,  # stopping early would hold out rows of its own
        random_state=0,
    )


fraud_model = ModelRecipe(
    name="fraud",
    service=fraud_v2,
    fallback=fraud_v2_fallback,
    spine=SPINE,
    spine_tables={
        "transactions": (
            "transaction_id",
            "tx_datetime",
            "customer_id",
            "terminal_id",
            "amount_cents",
            "ingested_at",
        ),
        "labels": ("transaction_id", "tx_datetime", "tx_fraud", "tx_fraud_scenario", "labelled_at"),
    },
    requests=REQUESTS,
    requests_tables={"transactions": ("transaction_id", "tx_datetime", "customer_id", "terminal_id", "amount_cents")},
    label="tx_fraud",
    label_known_at="labelled_at",
    estimator=make_estimator,
    trusted_types=("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",),
    train=days(21),
    gap=days(7),
    test=days(7),
    protocol=Protocol(entity="customer_id", top=100, group="tx_fraud_scenario"),
    words=Words(
        rows="payments",
        positives="frauds",
        entities="cards",
        groups={1: "large amounts", 2: "compromised terminals", 3: "compromised cards"},
    ),
    # Between what a model without feature views reaches and what this one does; `lockstep demo` prints both.
    thresholds=Thresholds(average_precision=0.4, auc=0.75, decision=0.3),
)
