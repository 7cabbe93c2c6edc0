"""Declare entities, sources, feature views and services once; compute the ticks of a stored view."""

from lockstep.views.declare import (
    Entity,
    FeatureRef,
    FeatureService,
    Freshness,
    OnDemandView,
    Source,
    StoredView,
    days,
    hard,
    hours,
    minutes,
    soft,
)
from lockstep.views.latest import LatestView, latest_view
from lockstep.views.use_case import Ceilings, ModelRecipe, Protocol, Thresholds, UseCase, load_use_case
from lockstep.views.windowed import (
    Measure,
    Ratio,
    WindowedView,
    count,
    ratio,
    total,
    total_of_squares,
    windowed_view,
)

__all__ = [
    "Ceilings",
    "Entity",
    "FeatureRef",
    "FeatureService",
    "Freshness",
    "LatestView",
    "Measure",
    "ModelRecipe",
    "OnDemandView",
    "Protocol",
    "Ratio",
    "Source",
    "StoredView",
    "Thresholds",
    "UseCase",
    "WindowedView",
    "count",
    "days",
    "hard",
    "hours",
    "latest_view",
    "load_use_case",
    "minutes",
    "ratio",
    "soft",
    "total",
    "total_of_squares",
    "windowed_view",
]
