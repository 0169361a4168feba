"""Pruning by graph spectrum (Yang et al. 2024, SUNDAE), with the baselines that it is compared with."""

from splat.strategies.spectral.selection import METHODS, Method, chosen
from splat.strategies.spectral.strategy import Spectral, SpectralConfig

__all__ = ["METHODS", "Method", "Spectral", "SpectralConfig", "chosen"]
