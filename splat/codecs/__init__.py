"""Scene files: `encode`, `decode` and `inspect`, whatever the format."""

from splat.codecs.format import Decoded, Format, differences
from splat.codecs.inspection import inspect
from splat.codecs.registry import decode, encode, extensions, format_to_write, formats, losses, sniff

__all__ = [
    "Decoded",
    "Format",
    "decode",
    "differences",
    "encode",
    "extensions",
    "format_to_write",
    "formats",
    "inspect",
    "losses",
    "sniff",
]
