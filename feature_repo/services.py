"""The features of each model, in the model's order."""

from feature_repo.views.amount_deviation import amount_deviation
from feature_repo.views.payment import payment
from feature_repo.views.terminal_risk import terminal_risk
from feature_repo.views.transaction_context import transaction_context
from lockstep.views import FeatureService

# After the 15 inputs of the Fraud Detection Handbook's baseline, in its order: the payment, then for the card and for the
# terminal one pair a window. https://fraud-detection-handbook.github.io (chapter 3, baseline feature transformation)
# Where they are not the published ones:
# * Windows end at the last tick and not at the payment. Of the card, the payment at hand is counted in; its payments since
#   the tick are not.
# * A key without a row gives NaN. The handbook, which has no store, gives a card's first payment the count 1, and a terminal
#   without payments in the window the risk 0.
# * A terminal's counts and risks are of the payments whose label was known by the tick; where it is late, so is the payment.
fraud_v1 = FeatureService(
    name="fraud_v1",
    features=(
        (transaction_context, "tx_amount"),
        (transaction_context, "tx_during_weekend"),
        (transaction_context, "tx_during_night"),
        (transaction_context, "customer_nb_tx_1d"),
        (transaction_context, "customer_avg_amount_1d"),
        (transaction_context, "customer_nb_tx_7d"),
        (transaction_context, "customer_avg_amount_7d"),
        (transaction_context, "customer_nb_tx_30d"),
        (transaction_context, "customer_avg_amount_30d"),
        (terminal_risk, "nb_tx_1d"),
        (terminal_risk, "risk_1d"),
        (terminal_risk, "nb_tx_7d"),
        (terminal_risk, "risk_7d"),
        (terminal_risk, "nb_tx_30d"),
        (terminal_risk, "risk_30d"),
    ),
    owner="fraud-ml",
    description="The 15 features of the Fraud Detection Handbook's baseline, as a store can serve them.",
)

# `distance_to_terminal` and `terminal_activity` are left out: no measurable gain in the demo's world, which draws
# compromised cards and terminals at random, so that frauds happen as near to home and at as busy a terminal as any payment.
# Each stored view that a model reads has to be kept fresh and proven in step, so two of the five are read.
fraud_v2 = FeatureService(
    name="fraud_v2",
    features=(
        *fraud_v1.features,
        (amount_deviation, "amount_to_avg_7d"),
        (amount_deviation, "amount_to_avg_30d"),
        (amount_deviation, "amount_zscore_7d"),
        (amount_deviation, "amount_zscore_30d"),
    ),
    owner="fraud-ml",
    description="The features of fraud_v1, and how far the payment lies from the card's own recent ones.",
)

# Answers while `terminal_risk`, whose objective is hard, is late.
fraud_v2_fallback = FeatureService(
    name="fraud_v2_fallback",
    features=tuple((view, feature) for view, feature in fraud_v2.features if view is not terminal_risk),
    owner="fraud-ml",
    description="The features of fraud_v2 without those of the terminal's risk.",
)

payment_only = FeatureService(
    name="payment_only",
    features=((payment, "tx_amount"), (payment, "tx_during_weekend"), (payment, "tx_during_night")),
    owner="fraud-ml",
    description="What a model can do without any feature view.",
)
