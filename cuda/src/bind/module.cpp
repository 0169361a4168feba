#include "bind.h"
#include "splat/constants.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of splat; validated and documented in splat.raster.";

    // Backends live until the interpreter ends, and their memory with them.
    nb::set_leak_warnings(false);

    nb::module_ c = m.def_submodule("constants");
    c.attr("NEAR") = splat::kNear;
    c.attr("FRUSTUM_MARGIN") = splat::kFrustumMargin;
    c.attr("EPS2D") = splat::kEps2d;
    c.attr("ALPHA_MAX") = splat::kAlphaMax;
    c.attr("ALPHA_MIN") = splat::kAlphaMin;
    c.attr("TRANSMITTANCE_MIN") = splat::kTransmittanceMin;
    c.attr("MEDIAN_TRANSMITTANCE") = splat::kMedianTransmittance;
    c.attr("TILE") = splat::kTile;
    c.attr("SH_OFFSET") = splat::kShOffset;

    splat::bind::codecs(m);
    splat::bind::quantize(m);
    splat::bind::raster(m);
    splat::bind::training(m);
}
