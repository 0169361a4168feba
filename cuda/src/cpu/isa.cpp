#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace splat::cpu {
namespace {

bool supported(Isa isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    switch (isa) {
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi2");
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi2");
        default: return true;
    }
#else
    return isa == Isa::baseline;
#endif
}

Isa choose() {
    const char* wanted = std::getenv("SPLAT_ISA");
    for (Isa isa : {Isa::avx512, Isa::avx2, Isa::baseline})
        if (supported(isa) && (!wanted || !*wanted || std::strcmp(wanted, isa_name(isa)) == 0)) return isa;
    return Isa::baseline;
}

}  // namespace

Isa active_isa() {
    static const Isa isa = choose();
    return isa;
}

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        default: return "baseline";
    }
}

}  // namespace splat::cpu
