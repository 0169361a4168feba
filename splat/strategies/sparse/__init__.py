"""Regularisers for scenes of few photographs."""

from splat.strategies.sparse.strategy import SparseView, SparseViewConfig

__all__ = ["SparseView", "SparseViewConfig"]
