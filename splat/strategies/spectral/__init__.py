"""Pruning by graph spectrum (Yang et al. 2024, SUNDAE), with the baselines that it is compared with."""

from splat.strategies.spectral import scorer  # noqa: F401  makes it known to splat.codecs.search
from splat.strategies.spectral.selection import METHODS, PUBLISHED, Method, Spectrum, chosen
from splat.strategies.spectral.strategy import Spectral, SpectralConfig

__all__ = ["METHODS", "PUBLISHED", "Method", "Spectral", "SpectralConfig", "Spectrum", "chosen"]
