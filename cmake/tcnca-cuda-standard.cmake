# CMake before 3.26 does not know how to ask nvcc for C++20, so the target brings the option. Here for a consumer's CMake to decide, in the tree or installed.
function(tcnca_cuda_standard target)
  if(CMAKE_VERSION VERSION_LESS 3.26)
    target_compile_options(${target} INTERFACE $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>>)
  endif()
endfunction()
