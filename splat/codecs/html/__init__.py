"""A web page that shows the scene: one file, opened from disk, without server or network.

The page holds the quantized scene (pack.py) and a small WebGL 2 renderer (assets/). Pages that Splat wrote can
be read back.
"""

from splat.codecs.html.page import FORMAT

__all__ = ["FORMAT"]
