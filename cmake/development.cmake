# How tests, benchmarks and examples are built. Nothing here affects consumers of tcnca::tcnca.
option(TCNCA_NATIVE "Compile for this machine's processor (-march=native)" ${PROJECT_IS_TOP_LEVEL})

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()

include(cmake/dependencies.cmake)
if(PROJECT_IS_TOP_LEVEL AND TCNCA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TCNCA_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${TCNCA_CCACHE})
endif()
if(NOT TCNCA_HAS_CUDA)
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU only (TCNCA_CUDA is ${TCNCA_CUDA})")
elseif(TCNCA_GPU)
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU and CUDA, on ${TCNCA_GPU}")
else()
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU and CUDA. No GPU was found: CUDA tests are skipped. "
    "The preset emulated runs them without a GPU")
endif()

add_library(tcnca_development INTERFACE)
target_link_libraries(tcnca_development INTERFACE tcnca::tcnca)
# -Wpedantic is for C++ only: nvcc writes line directives that are not standard.
set(warnings -Wall -Wextra -Wshadow -Wconversion -Werror)
list(JOIN warnings "," cuda_warnings)
target_compile_options(tcnca_development INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${warnings} -Wpedantic>
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:--Werror all-warnings -Xcompiler=${cuda_warnings}>")
if(TCNCA_NATIVE)
  target_compile_options(tcnca_development INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-march=native> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=native>)
endif()
target_link_libraries(tcnca_development INTERFACE OpenMP::OpenMP_CXX)
target_compile_options(tcnca_development INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)

# What the layers of examples/models need, and the whole models behind models/model.hpp, compiled once for all programs that make them.
if(TCNCA_BUILD_MODELS)
  add_library(tcnca_model_parts INTERFACE)
  target_link_libraries(tcnca_model_parts INTERFACE PkgConfig::OpenBLAS PkgConfig::FFTW)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/models/*.cpp)
  add_library(tcnca_models STATIC EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(tcnca_models PRIVATE tcnca_development tcnca_model_parts)
  if(TCNCA_HAS_CUDA_LIBRARIES)
    file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/models/*.cu)
    target_sources(tcnca_models PRIVATE ${sources})
    target_link_libraries(tcnca_models PRIVATE CUDA::cublas CUDA::cufft)
    # Where nothing can run them: no time goes into how fast they would be.
    if(NOT TCNCA_GPU AND NOT TCNCA_REQUIRE_CUDA AND NOT TCNCA_DEVICE_BUNDLE AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
      target_compile_options(tcnca_models PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--Ofast-compile=max>)
    endif()
    target_compile_definitions(tcnca_models PRIVATE TCNCA_MODELS_CUDA)
  endif()
endif()

# tcnca_add_program(<name> <sources>...): an executable, warnings are errors.
function(tcnca_add_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE tcnca_development)
endfunction()

# tcnca_add_skipped(TEST LABEL REASON): a skipped test in place of one that this build cannot contain. The summary of
# ctest shows only names, so the reason is part of the name.
function(tcnca_add_skipped name label reason)
  string(APPEND name " [${reason}]")
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${reason}")
  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()
set(TCNCA_WHY_NO_CUDA "no CUDA compiler (TCNCA_CUDA is ${TCNCA_CUDA})")
set(TCNCA_WHY_NO_MODELS "TCNCA_BUILD_MODELS is OFF")
