"""The constants of the training kernels, as compiled into them.

They are defined once, in cuda/include/splat/loss.h.
"""

from splat._native import constants as _native

SSIM_WINDOW: int = _native.SSIM_WINDOW
SSIM_SIGMA: float = _native.SSIM_SIGMA
SSIM_C1: float = _native.SSIM_C1
SSIM_C2: float = _native.SSIM_C2
