"""Scene files: `encode`, `decode` and `inspect`, whatever the format."""

from splat.codecs.format import Decoded, Format
from splat.codecs.inspection import inspect
from splat.codecs.registry import decode, encode, extensions, formats

__all__ = ["Decoded", "Format", "decode", "encode", "extensions", "formats", "inspect"]
