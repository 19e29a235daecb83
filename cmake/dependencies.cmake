# Finds everything beyond a C++ compiler. If something required is missing, the configuration ends with one message that
# names all of it and the packages to install. If something optional is missing, the configuration prints a line.
include(CheckCXXSourceCompiles)
include(CheckLanguage)

set(TCNCA_CUDA AUTO CACHE STRING "Compile the CUDA parts: AUTO, ON, OFF")
set_property(CACHE TCNCA_CUDA PROPERTY STRINGS AUTO ON OFF)
option(TCNCA_REQUIRE_CUDA "A CUDA test that skips has failed" OFF)
option(TCNCA_BUILD_MODELS "Build examples/models and examples/evaluations, and what uses them" ON)
if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/examples/models/CMakeLists.txt)
  set(TCNCA_BUILD_MODELS OFF)
endif()

# tcnca_need(FOUND WHAT DEBIAN FEDORA HOMEBREW CONDA): records what is missing. "-": the system has no such package.
set(systems "apt-get install" "dnf install" "brew install" "conda install -c conda-forge")
set(missing "")
foreach(system IN LISTS systems)
  set(install_${system} "")
endforeach()
function(tcnca_need found what)
  if(found)
    return()
  endif()
  set(missing "${missing}\n  ${what}" PARENT_SCOPE)
  foreach(system package IN ZIP_LISTS systems ARGN)
    if(NOT package STREQUAL "-" AND NOT " ${install_${system}} " MATCHES " ${package} ")
      set(install_${system} "${install_${system}} ${package}" PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# --- Optional programs: without them a test is skipped, or a build takes longer. ---

find_program(TCNCA_CCACHE ccache)
find_program(TCNCA_CLANG clang++)
find_program(TCNCA_NVIDIA_SMI nvidia-smi)
find_program(TCNCA_CUOBJDUMP cuobjdump HINTS /usr/local/cuda/bin)
find_program(TCNCA_COMPUTE_SANITIZER compute-sanitizer HINTS /usr/local/cuda/bin)
mark_as_advanced(TCNCA_CCACHE TCNCA_CLANG TCNCA_NVIDIA_SMI TCNCA_CUOBJDUMP TCNCA_COMPUTE_SANITIZER)

# --- CUDA. AUTO: if nvcc is found and, in a build without tests, a GPU. ---

set(TCNCA_HAS_CUDA OFF)
set(TCNCA_HAS_CUDA_LIBRARIES OFF)  # cuBLAS and cuFFT, for benchmarks and models
set(TCNCA_GPU "")
if(NOT TCNCA_CUDA STREQUAL OFF)
  if(TCNCA_NVIDIA_SMI)
    execute_process(COMMAND ${TCNCA_NVIDIA_SMI} --id=0 --query-gpu=name --format=csv,noheader
                    OUTPUT_VARIABLE TCNCA_GPU RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(failed)
      set(TCNCA_GPU "")
    endif()
  endif()
  # sm_80 includes its PTX, which later architectures can run; sm_90a runs on one architecture only. Without a GPU
  # nothing runs, and one architecture is enough.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real)
    if(TCNCA_GPU)
      list(PREPEND CMAKE_CUDA_ARCHITECTURES 80)
    endif()
  endif()
  set(ENV{PATH} "$ENV{PATH}:/usr/local/cuda/bin")  # where the toolkit is installed, usually not in PATH
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)  # it may have been installed since
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER AND (TCNCA_CUDA STREQUAL ON OR TCNCA_BUILD_TESTS OR TCNCA_GPU))
    enable_language(CUDA)
    set(TCNCA_HAS_CUDA ON)
    find_package(CUDAToolkit QUIET)
    if(TARGET CUDA::cublas AND TARGET CUDA::cufft)
      set(TCNCA_HAS_CUDA_LIBRARIES ON)
    elseif(TCNCA_CUDA STREQUAL AUTO)
      message(STATUS "tcnca: cuBLAS or cuFFT was not found, only the library and its tests use CUDA")
    endif()
  endif()
endif()
if(TCNCA_CUDA STREQUAL ON)
  set(names nvidia-cuda-toolkit cuda-toolkit - cuda-toolkit)
  tcnca_need("${TCNCA_HAS_CUDA}" "nvcc, the compiler of the CUDA toolkit (TCNCA_CUDA is ON)" ${names})
  if(TCNCA_BUILD_BENCH OR TCNCA_BUILD_MODELS)
    tcnca_need("${TCNCA_HAS_CUDA_LIBRARIES}" "cuBLAS and cuFFT of the CUDA toolkit" ${names})
  endif()
endif()
if(TCNCA_REQUIRE_CUDA)
  tcnca_need("${TCNCA_COMPUTE_SANITIZER}" "compute-sanitizer of the CUDA toolkit (TCNCA_REQUIRE_CUDA is ON)"
    nvidia-cuda-toolkit cuda-toolkit - cuda-toolkit)
endif()

# --- Libraries. ---

find_package(OpenMP QUIET COMPONENTS CXX)
tcnca_need("${OpenMP_CXX_FOUND}" "OpenMP for the C++ compiler" libomp-dev libomp-devel libomp llvm-openmp)

if(TCNCA_BUILD_TESTS)
  find_package(GTest QUIET)
  tcnca_need("${GTest_FOUND}" GoogleTest libgtest-dev gtest-devel googletest gtest)
endif()

if(TCNCA_BUILD_BENCH)
  find_package(benchmark QUIET)
  tcnca_need("${benchmark_FOUND}" "Google Benchmark" libbenchmark-dev google-benchmark-devel google-benchmark benchmark)
  # oneDNN, an optional baseline. Its CMake package would require OpenCL.
  find_path(DNNL_INCLUDE_DIR dnnl.hpp)
  find_library(DNNL_LIBRARY dnnl)
  mark_as_advanced(DNNL_INCLUDE_DIR DNNL_LIBRARY)
  if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
    add_library(tcnca_dnnl UNKNOWN IMPORTED)
    set_target_properties(tcnca_dnnl PROPERTIES
      IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
  else()
    message(STATUS "tcnca: oneDNN was not found, the benchmarks do not compare with it "
      "(Debian: libdnnl-dev, Fedora: onednn-devel, Homebrew and conda: onednn)")
  endif()
endif()

if(TCNCA_BUILD_MODELS)  # image files of an evaluation
  find_package(PNG QUIET)
  tcnca_need("${PNG_FOUND}" libpng libpng-dev libpng-devel libpng libpng)
endif()

# Models and benchmarks: OpenBLAS for matrix products, FFTW in both precisions, a command line.
if(TCNCA_BUILD_MODELS OR TCNCA_BUILD_BENCH)
  find_package(CLI11 QUIET)
  tcnca_need("${CLI11_FOUND}" CLI11 libcli11-dev cli11-devel cli11 cli11)
  find_package(PkgConfig QUIET)
  tcnca_need("${PKG_CONFIG_FOUND}" "pkg-config, which finds the next" pkg-config pkgconf-pkg-config pkgconf pkg-config)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(FFTW QUIET IMPORTED_TARGET fftw3 fftw3f)
    pkg_check_modules(OpenBLAS QUIET IMPORTED_TARGET openblas)
  endif()
  tcnca_need("${FFTW_FOUND}" "FFTW in double and single precision" libfftw3-dev fftw-devel fftw fftw)
  # Other libraries also install a <cblas.h>. This one must declare functions that only OpenBLAS has.
  if(OpenBLAS_FOUND)
    set(CMAKE_REQUIRED_LIBRARIES PkgConfig::OpenBLAS)
    check_cxx_source_compiles("#include <cblas.h>
      int main() {
        float a = 1, c = 0;
        openblas_set_num_threads(1);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 1, 1, 1, 1, &a, 1, &a, 1, 0, &c, 1);
        return openblas_get_config() && openblas_get_corename() ? 0 : 1;
      }" TCNCA_OPENBLAS_LINKS)
    unset(CMAKE_REQUIRED_LIBRARIES)
    set(OpenBLAS_FOUND ${TCNCA_OPENBLAS_LINKS})
    if(NOT TCNCA_OPENBLAS_LINKS)
      unset(TCNCA_OPENBLAS_LINKS CACHE)  # it may be repaired before the next configuration
    endif()
  endif()
  tcnca_need("${OpenBLAS_FOUND}" "OpenBLAS, its library and its own cblas.h"
    libopenblas-dev openblas-devel openblas openblas)
endif()

# --- What is missing. ---

if(missing)
  set(command "")
  if(DEFINED ENV{CONDA_PREFIX})
    set(command "conda install -c conda-forge")
  elseif(APPLE)
    set(command "brew install")
  else()
    cmake_host_system_information(RESULT distribution QUERY DISTRIB_INFO)
    if("${distribution_ID} ${distribution_ID_LIKE}" MATCHES "debian|ubuntu")
      set(command "apt-get install")
    elseif("${distribution_ID} ${distribution_ID_LIKE}" MATCHES "fedora|rhel")
      set(command "dnf install")
    endif()
  endif()
  set(install "")
  foreach(system IN LISTS systems)
    if(install_${system} AND (NOT command OR system STREQUAL command))
      string(APPEND install "\n  ${system}${install_${system}}")
    endif()
  endforeach()
  message(FATAL_ERROR "tcnca: required, but not found:${missing}\nInstall them:${install}\n"
    "or set to OFF what needs them: TCNCA_BUILD_TESTS, TCNCA_BUILD_BENCH, TCNCA_BUILD_EXAMPLES, TCNCA_BUILD_MODELS.")
endif()
