# How tests, benchmarks and examples are built. Nothing here reaches a consumer of tcnca::tcnca.
set(TCNCA_CUDA AUTO CACHE STRING "Compile the CUDA parts: AUTO, ON, OFF")
set_property(CACHE TCNCA_CUDA PROPERTY STRINGS AUTO ON OFF)
option(TCNCA_NATIVE "Compile for this machine's processor (-march=native)" ${PROJECT_IS_TOP_LEVEL})
option(TCNCA_REQUIRE_CUDA "A CUDA test that skips has failed" OFF)

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  find_program(TCNCA_CCACHE ccache)
  mark_as_advanced(TCNCA_CCACHE)
  if(TCNCA_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${TCNCA_CCACHE})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${TCNCA_CCACHE})
  endif()
endif()

# AUTO: where nvcc is found. A build without tests also wants a device, for CUDA code could then be compiled but serve nobody.
set(TCNCA_HAS_CUDA OFF)
set(TCNCA_GPU "")
if(NOT TCNCA_CUDA STREQUAL OFF)
  find_program(TCNCA_NVIDIA_SMI nvidia-smi)
  mark_as_advanced(TCNCA_NVIDIA_SMI)
  if(TCNCA_NVIDIA_SMI)
    execute_process(COMMAND ${TCNCA_NVIDIA_SMI} --id=0 --query-gpu=name --format=csv,noheader
                    OUTPUT_VARIABLE TCNCA_GPU RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(failed)
      set(TCNCA_GPU "")
    endif()
  endif()
  # sm_80 keeps its PTX, so that later architectures can run it; sm_90a is for one architecture only. Where nothing runs, one will do.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real)
    if(TCNCA_GPU)
      list(PREPEND CMAKE_CUDA_ARCHITECTURES 80)
    endif()
  endif()
  set(ENV{PATH} "$ENV{PATH}:/usr/local/cuda/bin")  # where the toolkit puts itself, seldom on the path
  include(CheckLanguage)
  check_language(CUDA)
  if(TCNCA_CUDA STREQUAL ON OR (CMAKE_CUDA_COMPILER AND (TCNCA_BUILD_TESTS OR TCNCA_GPU)))
    enable_language(CUDA)
    set(TCNCA_HAS_CUDA ON)
  endif()
endif()
if(NOT TCNCA_HAS_CUDA)
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU only (TCNCA_CUDA is ${TCNCA_CUDA})")
elseif(TCNCA_GPU)
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU and CUDA, on ${TCNCA_GPU}")
else()
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU and CUDA. No GPU was found: CUDA code is compiled, its tests are skipped")
endif()

# For tests and models where nothing can run them: no time goes into how fast they would be.
set(TCNCA_CUDA_IN_HASTE "")
if(TCNCA_HAS_CUDA AND NOT TCNCA_GPU AND NOT TCNCA_REQUIRE_CUDA AND NOT TCNCA_DEVICE_BUNDLE AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  set(TCNCA_CUDA_IN_HASTE $<$<COMPILE_LANGUAGE:CUDA>:--Ofast-compile=max>)
endif()

add_library(tcnca_development INTERFACE)
target_link_libraries(tcnca_development INTERFACE tcnca::tcnca)
# -Wpedantic is for C++ alone: the line directives that nvcc writes are not standard. -std is written out because CMake 3.25
# does not know how to ask nvcc for C++20.
set(warnings -Wall -Wextra -Wshadow -Wconversion -Werror)
list(JOIN warnings "," cuda_warnings)
target_compile_options(tcnca_development INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${warnings} -Wpedantic>
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++20 --Werror all-warnings -Xcompiler=${cuda_warnings}>")
if(TCNCA_NATIVE)
  target_compile_options(tcnca_development INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-march=native> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=native>)
endif()
find_package(OpenMP COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
  target_link_libraries(tcnca_development INTERFACE OpenMP::OpenMP_CXX)
  target_compile_options(tcnca_development INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)
endif()

# Averages by FFT want FFTW, in both precisions.
find_path(FFTW_INCLUDE_DIR fftw3.h)
find_library(FFTW_LIBRARY fftw3f)
find_library(FFTW_DOUBLE_LIBRARY fftw3)
mark_as_advanced(FFTW_INCLUDE_DIR FFTW_LIBRARY FFTW_DOUBLE_LIBRARY)
set(TCNCA_HAS_FFTW OFF)
if(FFTW_INCLUDE_DIR AND FFTW_LIBRARY AND FFTW_DOUBLE_LIBRARY)
  set(TCNCA_HAS_FFTW ON)
  add_library(tcnca_fftw INTERFACE)
  target_include_directories(tcnca_fftw SYSTEM INTERFACE ${FFTW_INCLUDE_DIR})
  target_link_libraries(tcnca_fftw INTERFACE ${FFTW_LIBRARY} ${FFTW_DOUBLE_LIBRARY})
else()
  message(STATUS "tcnca: FFTW not found (libfftw3-dev), averages by FFT are left out")
endif()

# What the layers and models of examples/models need.
find_path(OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas openblas-pthread openblas-openmp)
find_library(OPENBLAS_LIBRARY openblas)
mark_as_advanced(OPENBLAS_INCLUDE_DIR OPENBLAS_LIBRARY)
set(TCNCA_HAS_MODELS OFF)
if(OPENBLAS_INCLUDE_DIR AND OPENBLAS_LIBRARY)
  set(TCNCA_HAS_MODELS ON)
  add_library(tcnca_model_parts INTERFACE)
  target_include_directories(tcnca_model_parts SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR})
  target_link_libraries(tcnca_model_parts INTERFACE ${OPENBLAS_LIBRARY})
  # Their loops are OpenMP's, where there is one.
  target_compile_options(tcnca_model_parts INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-pragmas> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-unknown-pragmas>)
  # The whole models behind models/model.hpp, compiled once for all programs that make them.
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/models/*.cpp)
  add_library(tcnca_models STATIC EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(tcnca_models PRIVATE tcnca_development tcnca_model_parts)
  if(TCNCA_HAS_FFTW)
    target_link_libraries(tcnca_models PRIVATE tcnca_fftw)
    target_compile_definitions(tcnca_models PRIVATE $<$<COMPILE_LANGUAGE:CXX>:TCNCA_MODELS_FFT>)
  endif()
  if(TCNCA_HAS_CUDA)
    find_package(CUDAToolkit QUIET)
  endif()
  if(TARGET CUDA::cublas AND TARGET CUDA::cufft)
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/models/*.cu)
    target_sources(tcnca_models PRIVATE ${sources})
    target_link_libraries(tcnca_models PRIVATE CUDA::cublas CUDA::cufft)
    target_compile_options(tcnca_models PRIVATE ${TCNCA_CUDA_IN_HASTE})
    target_compile_definitions(tcnca_models PRIVATE TCNCA_MODELS_CUDA)
  endif()
else()
  message(STATUS "tcnca: OpenBLAS not found (libopenblas-dev), the layers and models of examples/ are left out")
endif()

# Images for examples/lra, where they come as PNG files.
add_library(tcnca_png INTERFACE)
find_package(PNG QUIET)
if(PNG_FOUND)
  target_link_libraries(tcnca_png INTERFACE PNG::PNG)
  target_compile_definitions(tcnca_png INTERFACE TCNCA_HAS_PNG=1)
endif()

# tcnca_add_program(<name> <sources>...): an executable, warnings are errors.
function(tcnca_add_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE tcnca_development)
endfunction()

# tcnca_add_benchmark(<name> <sources>...): a Google Benchmark program. The target bench_results runs them all and keeps
# their numbers, one JSON file a program, in TCNCA_RESULTS: bench/results/<the GPU or the processor's architecture>.
if(TCNCA_GPU)
  string(MAKE_C_IDENTIFIER "${TCNCA_GPU}" machine)
else()
  set(machine ${CMAKE_SYSTEM_PROCESSOR})
endif()
set(TCNCA_RESULTS ${PROJECT_SOURCE_DIR}/bench/results/${machine})
function(tcnca_add_benchmark name)
  tcnca_add_program(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE benchmark::benchmark)
  add_custom_target(${name}_results
    COMMAND ${CMAKE_COMMAND} -E make_directory ${TCNCA_RESULTS}
    COMMAND ${name} --benchmark_out=${TCNCA_RESULTS}/${name}.json --benchmark_out_format=json
    USES_TERMINAL VERBATIM)
  if(NOT TARGET bench_results)
    add_custom_target(bench_results)
  endif()
  add_dependencies(bench_results ${name}_results)
endfunction()
