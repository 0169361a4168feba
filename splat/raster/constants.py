"""The constants of projection and blending, as compiled into the native kernels.

They are defined once, in cuda/include/splat/constants.h.
"""

from splat._native import constants as _native

NEAR: float = _native.NEAR
FRUSTUM_MARGIN: float = _native.FRUSTUM_MARGIN
EPS2D: float = _native.EPS2D
ALPHA_MAX: float = _native.ALPHA_MAX
ALPHA_MIN: float = _native.ALPHA_MIN
TRANSMITTANCE_MIN: float = _native.TRANSMITTANCE_MIN
MEDIAN_TRANSMITTANCE: float = _native.MEDIAN_TRANSMITTANCE
TILE: int = _native.TILE
SH_OFFSET: float = _native.SH_OFFSET
