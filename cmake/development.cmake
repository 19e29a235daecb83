# How tests, benchmarks and examples are built. Nothing here reaches a consumer of tcnca::tcnca.
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
  message(STATUS "tcnca ${PROJECT_VERSION}: CPU and CUDA. No GPU was found: CUDA tests are skipped; the preset emulated runs them without one")
endif()

add_library(tcnca_development INTERFACE)
target_link_libraries(tcnca_development INTERFACE tcnca::tcnca)
# -Wpedantic is for C++ alone: the line directives that nvcc writes are not standard.
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

# tcnca_add_program(<name> <sources>...): an executable, warnings are errors.
function(tcnca_add_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE tcnca_development)
endfunction()

# tcnca_add_skipped(<test> <label> <reason>): stands for a test that this build cannot contain. The reason is in the name, for ctest's summary shows no more.
function(tcnca_add_skipped name label reason)
  string(APPEND name " [${reason}]")
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${reason}")
  set_tests_properties(${name} PROPERTIES LABELS ${label} SKIP_REGULAR_EXPRESSION "^skipped: ")
endfunction()
set(TCNCA_WHY_NO_CUDA "no CUDA compiler (TCNCA_CUDA is ${TCNCA_CUDA})")

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
