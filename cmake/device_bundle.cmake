# build/device-bundle/bundle: a folder that tests and measures the CUDA code on a machine where nothing can be
# installed. TCNCA_DEVICE_BUNDLE enables it; the preset `device-bundle` builds it. Included before the dependencies
# are found, so that static libraries are preferred.
list(PREPEND CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
add_link_options($<$<LINK_LANGUAGE:CXX>:-static-libstdc++> $<$<LINK_LANGUAGE:CXX>:-static-libgcc>
  $<$<LINK_LANGUAGE:CUDA>:-Xcompiler=-static-libstdc++> $<$<LINK_LANGUAGE:CUDA>:-Xcompiler=-static-libgcc>)
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libgomp.a
  OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE)
if(IS_ABSOLUTE "${gomp}")
  set(OpenMP_gomp_LIBRARY ${gomp} CACHE FILEPATH "OpenMP's runtime")
endif()

# The target device_bundle: all CUDA test programs, and benchmarks that run on a GPU (bench/CMakeLists.txt).
function(tcnca_add_device_bundle)
  set(programs)
  foreach(folder test bench examples/models/test)
    if(NOT TCNCA_BUILD_MODELS AND folder MATCHES models)
      continue()
    endif()
    get_property(targets DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER targets INCLUDE REGEX "^test_.*_cuda$|^(conv_vs_fft|attention_vs_gemm|gated_fusion_bench|ema_bench)$")
    list(APPEND programs ${targets})
  endforeach()
  set(files)
  foreach(program IN LISTS programs)
    list(APPEND files $<TARGET_FILE:${program}>)
  endforeach()
  add_custom_target(device_bundle
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/device_bundle.sh ${PROJECT_BINARY_DIR}/bundle ${files}
    DEPENDS ${programs} VERBATIM COMMENT "Gathering the bundle for a device")
endfunction()
cmake_language(DEFER CALL tcnca_add_device_bundle)
