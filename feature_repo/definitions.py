"""Everything the library works on, in one value."""

from feature_repo import PROJECT
from feature_repo.entities import customer, terminal
from feature_repo.model import fraud_model
from feature_repo.services import fraud_v1, fraud_v2, fraud_v2_fallback, payment_only
from feature_repo.sources import customers, labels, terminals, transactions
from feature_repo.views.amount_deviation import amount_deviation
from feature_repo.views.customer_profile import customer_profile
from feature_repo.views.customer_spend import customer_spend
from feature_repo.views.payment import payment
from feature_repo.views.terminal_activity import terminal_activity
from feature_repo.views.terminal_distance import terminal_distance
from feature_repo.views.terminal_risk import terminal_risk
from feature_repo.views.terminal_static import terminal_static
from feature_repo.views.transaction_context import transaction_context
from lockstep.views import UseCase

use_case = UseCase(
    project=PROJECT,
    entities=(customer, terminal),
    sources=(customers, terminals, transactions, labels),
    views=(customer_profile, customer_spend, terminal_static, terminal_activity, terminal_risk),
    on_demand=(transaction_context, amount_deviation, payment, terminal_distance),
    services=(fraud_v1, fraud_v2, fraud_v2_fallback, payment_only),
    model=fraud_model,
)
