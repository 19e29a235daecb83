# Runs after a test program is linked. Writes FILE, which registers the program with ctest once for each label it has
# tests of.
#   cmake -D PROGRAM=... -D NAME=... -D FILE=... -P register_tests.cmake
cmake_minimum_required(VERSION 3.23)
set(filter_cpu "-*fiber*")  # names of tests on fibers contain the word
set(filter_fiber "*fiber*")

set(tests "")
foreach(label cpu fiber)
  execute_process(COMMAND ${PROGRAM} --gtest_list_tests --gtest_filter=${filter_${label}}
                  OUTPUT_VARIABLE list RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${PROGRAM} cannot list its tests: ${failed}")
  elseif(list MATCHES "\n  [^ ]")
    string(APPEND tests
      "add_test(${NAME}.${label} [==[${PROGRAM}]==] --gtest_filter=${filter_${label}} --gtest_brief=1)\n"
      "tcnca_judge_test(${NAME}.${label} ${label})\n")
  endif()
endforeach()
if(NOT tests)
  message(FATAL_ERROR "${PROGRAM} has no test")
endif()
file(WRITE ${FILE} "${tests}")
