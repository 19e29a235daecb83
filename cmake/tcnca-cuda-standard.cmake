# CMake before 3.26 cannot request C++20 from nvcc, so the target adds the option. The version is that of the consumer's
# CMake: in the tree and installed.
function(tcnca_cuda_standard target)
  if(CMAKE_VERSION VERSION_LESS 3.26)
    target_compile_options(${target} INTERFACE $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>>)
  endif()
endfunction()
