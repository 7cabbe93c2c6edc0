"""How far from home a card is used. Owner: fraud-ml.

A view of its own: with any feature of an on-demand view, a model takes on every stored view that its function reads, and two
more views to read, to keep fresh and to prove in step are a price only for a model that gains from the distance.
"""

from feature_repo.on_demand.distance import terminal_distance as compute_distance
from feature_repo.views.customer_profile import customer_profile
from feature_repo.views.terminal_static import terminal_static
from lockstep.views import OnDemandView

terminal_distance = OnDemandView(
    name="terminal_distance",
    function=compute_distance,
    inputs={},
    reads=(
        (customer_profile, "home_x"),
        (customer_profile, "home_y"),
        (terminal_static, "terminal_x"),
        (terminal_static, "terminal_y"),
    ),
    outputs={"distance_to_terminal": "float64"},
    owner="fraud-ml",
    description="From the card holder's home to the terminal, on the map.",
    tags={"domain": "payments", "pii": "yes", "tier": "3"},
)
