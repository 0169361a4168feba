# The GPU kernels: module _cuda where a CUDA compiler is found, and _emulated, the same sources for the CPU, for
# the tests.

set(SPLAT_GPU_SOURCES
  src/cuda/adam.cu
  src/cuda/binning.cu
  src/cuda/blend_backward.cu
  src/cuda/blend_backward_splats.cu
  src/cuda/blend_forward.cu
  src/cuda/density.cu
  src/cuda/photometric.cu
  src/cuda/project.cu
  src/cuda/project_backward.cu
  src/cuda/raster.cu
  src/cuda/sort.cu
)
set(SPLAT_GPU_BINDINGS
  src/bind/gpu.cpp
  src/bind/gpu_raster.cpp
  src/bind/gpu_training.cpp
)

# Whether to build the GPU kernels for the CPU as well: development builds test them so, what users install does
# not carry them. Not in the cache, as both kinds of build share a folder.
if(SKBUILD_STATE STREQUAL "editable")
  set(SPLAT_WITH_EMULATED ON)
else()
  set(SPLAT_WITH_EMULATED OFF)
endif()
option(SPLAT_CUDA "Build for NVIDIA GPUs where a CUDA compiler is found" ON)

if(SPLAT_WITH_EMULATED)
  # The host compiler does not take .cu for C++.
  set(sources)
  foreach(source ${SPLAT_GPU_SOURCES} tests/selftest.cu)
    get_filename_component(name ${source} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${name}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${source}\"\n" @ONLY)
    list(APPEND sources ${wrapper})
  endforeach()
  nanobind_add_module(_emulated NB_STATIC NB_DOMAIN splat_emulated NOMINSIZE ${SPLAT_GPU_BINDINGS} ${sources})
  target_include_directories(_emulated PRIVATE include src/cuda tests)
  target_compile_definitions(_emulated PRIVATE SPLAT_EMULATE)
  # As nvcc compiles device code: memory may be read as another type.
  target_compile_options(_emulated PRIVATE -O2 -fno-strict-aliasing -Wno-unknown-pragmas)
  install(TARGETS _emulated LIBRARY DESTINATION splat)
endif()

if(NOT SPLAT_CUDA)
  return()
endif()

# nvcc: $CUDACXX, the path, the usual folder, or the pip packages (nvidia-cuda-nvcc and its kin).
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(SPLAT_NVCC nvcc HINTS
    /usr/local/cuda/bin "${Python_SITEARCH}/nvidia/cu13/bin" "${Python_SITEARCH}/nvidia/cuda_nvcc/bin")
  if(SPLAT_NVCC)
    set(CMAKE_CUDA_COMPILER ${SPLAT_NVCC})
  endif()
endif()

# $SPLAT_CUDA_ARCHITECTURES; else the GPUs of this machine; else, for a package, all that the compiler knows from
# Turing on, with PTX for what comes after; else the one architecture that proves that the sources compile.
if(DEFINED ENV{SPLAT_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_ARCHITECTURES $ENV{SPLAT_CUDA_ARCHITECTURES})
elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE capabilities ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" capabilities "${capabilities}")
    string(REPLACE "." "" capabilities "${capabilities}")
    list(REMOVE_DUPLICATES capabilities)
  else()
    set(capabilities)
  endif()
  if(capabilities)
    list(TRANSFORM capabilities APPEND -real)
    set(CMAKE_CUDA_ARCHITECTURES ${capabilities})
  elseif(SKBUILD_STATE STREQUAL "editable")
    set(CMAKE_CUDA_ARCHITECTURES 90-real)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
  endif()
  set(SPLAT_CHOSE_ARCHITECTURES ON)
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(STATUS "No CUDA compiler: splat is built for the CPU alone")
  return()
endif()
enable_language(CUDA)
if(SPLAT_CHOSE_ARCHITECTURES AND "90" IN_LIST CMAKE_CUDA_ARCHITECTURES
   AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  list(REMOVE_ITEM CMAKE_CUDA_ARCHITECTURES 90)
  list(APPEND CMAKE_CUDA_ARCHITECTURES 90-real 100-real 120)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
find_package(CUDAToolkit REQUIRED)

add_library(gpu_kernels STATIC ${SPLAT_GPU_SOURCES})
target_include_directories(gpu_kernels PRIVATE include src/cuda)
target_compile_options(gpu_kernels PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>)

# Approximate quotients and roots are as good there: the result is a test with slack, or goes into a sum.
set_source_files_properties(
  src/cuda/blend_backward.cu src/cuda/blend_backward_splats.cu src/cuda/blend_forward.cu
  PROPERTIES COMPILE_OPTIONS --use_fast_math)

nanobind_add_module(_cuda NB_STATIC NB_DOMAIN splat_cuda NOMINSIZE ${SPLAT_GPU_BINDINGS})
target_include_directories(_cuda PRIVATE include src/cuda)
string(REPLACE ";" " " architectures "${CMAKE_CUDA_ARCHITECTURES}")
target_compile_definitions(_cuda PRIVATE "SPLAT_ARCHITECTURES=\"${architectures}\"")
target_link_libraries(_cuda PRIVATE gpu_kernels CUDA::cudart_static)
install(TARGETS _cuda LIBRARY DESTINATION splat)
