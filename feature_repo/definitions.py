"""Everything the library works on, in one value."""

from feature_repo import PROJECT
from feature_repo.entities import customer, terminal
from feature_repo.model import fraud_model
from feature_repo.services import fraud_v1
from feature_repo.sources import labels, transactions
from feature_repo.views.customer_spend import customer_spend
from feature_repo.views.terminal_risk import terminal_risk
from feature_repo.views.transaction import transaction_context
from lockstep.views import UseCase

use_case = UseCase(
    project=PROJECT,
    entities=(customer, terminal),
    sources=(transactions, labels),
    views=(customer_spend, terminal_risk),
    on_demand=(transaction_context,),
    services=(fraud_v1,),
    model=fraud_model,
)
