"""Quantization-aware training for small files."""

from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.strategy import Vq

__all__ = ["Vq", "VqConfig"]
