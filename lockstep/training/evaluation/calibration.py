"""Whether a score of 0.3 means three in ten."""

import numpy as np

from lockstep.training.evaluation.document import Calibration, CalibrationBin
from lockstep.training.evaluation.scored import Scored

# Equal steps in log-odds, a factor of 3 each: 0.5, 0.75, 0.9, ... upwards and 0.25, 0.1, 0.036, ... downwards. Where positives
# are rare, ten bins of equal width hold nearly all rows in the first, and ten of equally many rows hold nearly all positives in
# the last. Edges that do not depend on the scores let two models be laid over each other.
EDGES = tuple(1 / (1 + 3.0**-step) for step in range(-8, 6))


def calibration(scored: Scored) -> Calibration:
    """Return the Brier score, the expected calibration error and the reliability curve; bins without rows are left out.

    The expected calibration error is the mean of |mean score - share of positives| over bins, weighted by rows (Naeini et al.,
    *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, AAAI 2015). With rare positives most rows are in the lowest
    bins, and so most of its weight: the curve says more.
    """
    place = np.searchsorted(EDGES, scored.scores, side="right")
    count = len(EDGES) + 1
    rows = np.bincount(place, minlength=count)
    scores = np.bincount(place, weights=scored.scores, minlength=count)
    positives = np.bincount(place, weights=scored.labels, minlength=count)
    edges = (0.0, *EDGES, 1.0)
    return Calibration(
        brier=float(np.mean((scored.scores - scored.labels) ** 2)),
        brier_no_skill=scored.share * (1 - scored.share),
        expected_error=float(np.abs(scores - positives).sum()) / scored.rows,
        mean_score=float(scored.scores.mean()),
        share=scored.share,
        bins=tuple(
            CalibrationBin(
                low=edges[n],
                high=edges[n + 1],
                rows=int(rows[n]),
                mean_score=float(scores[n] / rows[n]),
                positives=int(positives[n]),
            )
            for n in np.flatnonzero(rows)
        ),
    )
