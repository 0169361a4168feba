// Which build of the kernels runs on this machine.
//
// Every file of src/cpu/kernels is compiled once per instruction set, each time inside another
// namespace (SPLAT_ISA is baseline, avx2 or avx512). An area declares a table of functions in a header,
//
//     struct AdamKernels { void (*step)(...); };
//     SPLAT_DECLARE_KERNELS(AdamKernels, adam)
//
// and one kernel file defines it:
//
//     namespace splat::cpu::SPLAT_ISA { const AdamKernels adam{&step}; }
//
// Callers write `adam_kernels().step(...)`.
//
// Kernel files must not emit functions that other files share (the linker might keep the copy
// compiled for AVX-512 on a machine without it): everything in them is static, in an anonymous
// namespace or always inlined, and they use nothing of the standard library but <cstdint>, <cstddef>.
#pragma once

namespace splat::cpu {

enum class Isa { baseline, avx2, avx512 };

// The best instruction set of this machine, or the one that the environment variable SPLAT_ISA
// names (baseline, avx2, avx512); baseline where the machine lacks that one. Read once.
Isa active_isa();
const char* isa_name(Isa isa);

}  // namespace splat::cpu

#if defined(__x86_64__)
#define SPLAT_DECLARE_KERNELS(Type, name)                                            \
    namespace baseline { extern const Type name; }                                   \
    namespace avx2 { extern const Type name; }                                       \
    namespace avx512 { extern const Type name; }                                     \
    inline const Type& name##_kernels() {                                            \
        switch (active_isa()) {                                                      \
            case Isa::avx512: return avx512::name;                                   \
            case Isa::avx2: return avx2::name;                                       \
            default: return baseline::name;                                          \
        }                                                                            \
    }
#else
#define SPLAT_DECLARE_KERNELS(Type, name)                                            \
    namespace baseline { extern const Type name; }                                   \
    inline const Type& name##_kernels() { return baseline::name; }
#endif
