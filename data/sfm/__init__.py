"""Structure from motion: photographs and videos to a dataset, with pycolmap.

>>> process([Path("photos")], Path("scene"), ProcessOptions(), listener)
"""

from splat.data.sfm.options import ProcessOptions
from splat.data.sfm.process import Listener, process

__all__ = ["Listener", "ProcessOptions", "process"]
