"""What an export does to a scene: filters, pruning by a score, and the search for a size or a quality."""

from splat.codecs.search.filters import crop, limit_opacity, limit_scale, lower_degree, parse_size
from splat.codecs.search.scorers import Scorer, Viewpoints, names, ranking, register, scorer
from splat.codecs.search.survivors import survivors
from splat.codecs.search.targets import Plan, Search, Trial, Unreachable

__all__ = [
    "Plan",
    "Scorer",
    "Search",
    "Trial",
    "Unreachable",
    "Viewpoints",
    "crop",
    "limit_opacity",
    "limit_scale",
    "lower_degree",
    "names",
    "parse_size",
    "ranking",
    "register",
    "scorer",
    "survivors",
]
