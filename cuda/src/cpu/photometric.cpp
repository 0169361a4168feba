#include "photometric.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "thread_pool.h"

namespace splat::cpu {
namespace {

// Columns of a band: its scratch memory then fits a second-level cache of 1 MB.
constexpr int kColumns = 512;
// Fewest rows of a band: each recomputes 4 kSsimRadius rows that its neighbours compute too.
constexpr int kRows = 32;

struct Aligned {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
};

}  // namespace

Loss photometric_loss(Photometric job, float ssim_weight, int threads) {
    const int64_t pixels = static_cast<int64_t>(job.height) * job.width;
    const int64_t kept = job.mask ? pixels - std::count(job.mask, job.mask + pixels, 0) : pixels;
    if (kept == 0) {
        if (job.gradient) std::fill_n(job.gradient, 3 * pixels, 0.0f);
        return {0.0, 0.0, 0};
    }
    job.l1_weight = static_cast<float>((1.0 - ssim_weight) / (3.0 * kept));
    job.ssim_weight = static_cast<float>(ssim_weight / (3.0 * kept));

    // Equal bands, as many rows of them as threads; strips of columns by the width alone, as the order in
    // which the sums of a row are added depends on them.
    const int strips = (job.width + kColumns - 1) / kColumns;
    const int columns = (job.width + strips - 1) / strips;
    const int rows_of_bands = std::clamp((threads + strips - 1) / strips, 1, std::max(1, job.height / kRows));
    std::vector<double> sums(2 * static_cast<size_t>(strips) * job.height);

    const auto& kernels = photometric_kernels();
    const int64_t scratch = kernels.scratch(columns);
    parallel_for(threads, static_cast<int64_t>(strips) * rows_of_bands, [&](int64_t task) {
        const int strip = static_cast<int>(task % strips), part = static_cast<int>(task / strips);
        double* l1 = sums.data() + 2 * static_cast<size_t>(strip) * job.height;
        const Band band{static_cast<int>(static_cast<int64_t>(job.height) * part / rows_of_bands),
                        static_cast<int>(static_cast<int64_t>(job.height) * (part + 1) / rows_of_bands),
                        strip * columns,
                        std::min(job.width, (strip + 1) * columns),
                        l1,
                        l1 + job.height};
        std::unique_ptr<float[], Aligned> memory(new (std::align_val_t(64)) float[scratch]);
        kernels.band(job, band, memory.get());
    });

    Loss loss{0.0, 0.0, kept};
    for (int strip = 0; strip < strips; ++strip) {
        const double* l1 = sums.data() + 2 * static_cast<size_t>(strip) * job.height;
        for (int row = 0; row < job.height; ++row) {
            loss.l1 += l1[row];
            loss.dissimilarity += l1[job.height + row];
        }
    }
    return loss;
}

}  // namespace splat::cpu
