"""How good a two-class model is on the days held out: ranking, daily top, calibration, recall, and how sure that is."""
