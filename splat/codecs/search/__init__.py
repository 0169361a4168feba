"""What an export does to a scene: filters, pruning by a score, and the search for a size or a quality."""

from splat.codecs.search.filters import (
    inside,
    kept_metadata,
    lower_degree,
    opaque,
    parse_size,
    select_codebooks,
    small,
)
from splat.codecs.search.scorers import Scorer, Seen, Viewpoints, names, ranking, register, scorer
from splat.codecs.search.survivors import survivors
from splat.codecs.search.targets import Plan, Search, Trial, Unreachable

__all__ = [
    "Plan",
    "Scorer",
    "Search",
    "Seen",
    "Trial",
    "Unreachable",
    "Viewpoints",
    "inside",
    "kept_metadata",
    "lower_degree",
    "names",
    "opaque",
    "parse_size",
    "ranking",
    "register",
    "scorer",
    "select_codebooks",
    "small",
    "survivors",
]
