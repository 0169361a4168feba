"""The vq container for the smallest files; see docs/vq-format.md."""

from splat.codecs.vq.container import FORMAT

__all__ = ["FORMAT"]
