# The CUDA tests without a GPU: compiled to PTX and linked with the CUDA runtime library TCNCA_CUDA_RUNTIME, which
# interprets it. Environment variables of that library select its checks. Label emulated; the target of this name builds
# the programs.
set(TCNCA_CUDA_RUNTIME "" CACHE FILEPATH
  "A CUDA runtime library (libcudart) that interprets PTX, for the preset emulated")
if(NOT EXISTS "${TCNCA_CUDA_RUNTIME}" OR NOT TCNCA_HAS_CUDA)
  message(FATAL_ERROR "The preset emulated needs nvcc, and in the environment variable TCNCA_CUDA_RUNTIME the path of "
    "a CUDA runtime library that interprets PTX. It is \"${TCNCA_CUDA_RUNTIME}\".")
endif()
cmake_path(GET TCNCA_CUDA_RUNTIME PARENT_PATH folder)
find_library(TCNCA_CUDA_RUNTIME_BLAS cublas PATHS ${folder} NO_DEFAULT_PATH)  # its stand-in for cuBLAS
mark_as_advanced(TCNCA_CUDA_RUNTIME_BLAS)

# Programs that take long run a part of their tests, which still launches each of their kernels: attention at its edge
# extents, which are all kinds of calls, and with special values; not random extents, repetitions and precision.
set(less "-*random_extents*:*repeats_bit_by_bit*:*precision*:*huge_scores*:*rise_from_block*")
foreach(stem softmax laplace_relu2 16bit wgmma wgmma_backward features packed)
  set(part_chunked_attention_${stem} ${less})
endforeach()
# Some versions of the runtime clear the first bytes of an array when the array before it, of 1 MB or more, is freed.
string(APPEND part_chunked_attention_softmax ":*constant_bias_has_no_effect*")
# The runtime reports launches that it refuses, as these tests expect.
set(part_common_launch "-*refused*")

add_custom_target(emulated)
# tcnca_add_emulated(<program> <source> <architecture>)
function(tcnca_add_emulated program source arch)
  add_executable(${program} EXCLUDE_FROM_ALL ${source})
  target_include_directories(${program} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${program} PRIVATE tcnca_development ${TCNCA_CUDA_RUNTIME})
  tcnca_select_types(${program})
  set_target_properties(${program} PROPERTIES CUDA_ARCHITECTURES OFF CUDA_RUNTIME_LIBRARY None)
  target_compile_options(${program} PRIVATE "SHELL:-gencode arch=${arch},code=${arch}" --compress-mode=none)
  add_dependencies(emulated ${program})
endfunction()

# Controls: the runtime reports each fault by its name, and the program then ends with an error.
tcnca_add_emulated(emulated_control emulated/control.cu compute_80)
set(finding_race "race: write after read in shared memory.*race: read after write in shared memory")
set(finding_uninitialised "uninitialised shared memory: read of shared memory that was never written")
set(finding_bounds "out of bounds: 4-byte write out of bounds")
set(finding_alignment "misaligned: 8-byte write of a misaligned global address")
set(finding_dependency "race: write to global memory that the kernel before has touched, without griddepcontrol.wait")
foreach(fault race uninitialised bounds alignment dependency)
  add_test(NAME emulated.control.${fault}
    COMMAND sh -c "\"$0\" ${fault} 2>&1; echo \"exit status $?\"" $<TARGET_FILE:emulated_control>)
  set_tests_properties(emulated.control.${fault} PROPERTIES LABELS emulated ENVIRONMENT EMU_STRICT=1
    PASS_REGULAR_EXPRESSION "${finding_${fault}}.*exit status 1")
endforeach()
add_test(NAME emulated.control.nothing COMMAND emulated_control nothing)
set_tests_properties(emulated.control.nothing PROPERTIES LABELS emulated FAIL_REGULAR_EXPRESSION "findings: ")

list(TRANSFORM folders APPEND /*.cu OUTPUT_VARIABLE patterns)
file(GLOB sources CONFIGURE_DEPENDS *.cu ${patterns})
foreach(source IN LISTS sources)
  tcnca_name_test()
  if(id STREQUAL chunked_attention_rotary)
    tcnca_add_skipped(${name}.emulated emulated "its kernels call a function, pow, and are not interpreted")
    continue()
  endif()
  # They take minutes to compile, and their kernels are those of other programs.
  if(NOT TCNCA_TEST_ALL AND id MATCHES "default_tuning|long_sums|passes_long")
    tcnca_add_skipped(${name}.emulated emulated "TCNCA_TEST_ALL is not ON")
    continue()
  endif()
  # Clusters, wgmma, stmatrix and launches that overlap need sm_90a. What has a form of its own below is run in both
  # forms.
  set(arches compute_80)
  if(id MATCHES "wgmma|channel|passes|phase|column|common_launch")
    set(arches compute_90a)
  elseif(id MATCHES "tensor|warp")
    set(arches compute_80 compute_90a)
  endif()

  set(filter "*")
  if(DEFINED part_${id} AND (NOT TCNCA_TEST_ALL OR id STREQUAL common_launch))
    set(filter ${part_${id}})
  endif()
  foreach(arch IN LISTS arches)
    set(program emulated_${id})
    set(test ${name}.emulated)
    set(environment TCNCA_REQUIRE_CUDA=1)
    if(arch STREQUAL compute_80 AND "compute_90a" IN_LIST arches)
      string(APPEND program _80)
      set(test ${name}_80.emulated)
      list(APPEND environment EMU_DEVICE=a100)
    endif()
    tcnca_add_emulated(${program} ${source} ${arch})
    target_link_libraries(${program} PRIVATE GTest::gtest_main)
    add_test(NAME ${test} COMMAND ${program} --gtest_filter=${filter} --gtest_brief=1)
    set_tests_properties(${test} PROPERTIES LABELS emulated FAIL_REGULAR_EXPRESSION "0 tests from 0 test suites ran"
      ENVIRONMENT "${environment}")
    # Some versions of the runtime report that a completed product's registers are read if a later product is under way.
    # Findings of other kinds are failures here, too.
    # A second run has the warps in another order, some far behind others.
    if(id MATCHES "^chunked_attention_wgmma")
      add_test(NAME ${name}_shuffled.emulated COMMAND ${program} --gtest_filter=${filter} --gtest_brief=1)
      set_tests_properties(${test} ${name}_shuffled.emulated PROPERTIES LABELS emulated
        ENVIRONMENT "${environment};EMU_STRICT=0" FAIL_REGULAR_EXPRESSION
        "findings: ([^p]|proxy|product's [fo]);0 tests from 0 test suites ran")
      set_property(TEST ${name}_shuffled.emulated APPEND PROPERTY ENVIRONMENT EMU_SEED=2)
    endif()
  endforeach()
endforeach()
