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
# If nothing can run the kernels, compile them fast.
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13
  AND NOT (TCNCA_GPU OR TCNCA_REQUIRE_CUDA OR TCNCA_DEVICE_BUNDLE OR TCNCA_CUDA_RUNTIME))
  target_compile_options(tcnca_development INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:--Ofast-compile=max>)
endif()
target_link_libraries(tcnca_development INTERFACE OpenMP::OpenMP_CXX)
target_compile_options(tcnca_development INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${OpenMP_CXX_FLAGS}>)

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
