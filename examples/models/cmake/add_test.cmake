# The library's test support, which these tests share: golden files, random numbers, executors that run on fibers.
set(tcnca_test_folder ${CMAKE_CURRENT_LIST_DIR}/../../../test)

# tcnca_add_model_test(<stem> [<library>...]): the program test_<stem>, from <stem>.cpp. A GoogleTest whose name
# contains `fiber` runs under the label fiber, all others under cpu; FIBER says that the program has such tests.
function(tcnca_add_model_test stem)
  cmake_parse_arguments(PARSE_ARGV 1 test "FIBER" "" "")
  if((TCNCA_TEST_ONLY AND NOT stem MATCHES "^(${TCNCA_TEST_ONLY})$")
    OR (TCNCA_TEST_EXCLUDE AND stem MATCHES "^(${TCNCA_TEST_EXCLUDE})$"))
    return()
  endif()
  set(program test_${stem})
  set(nothing "0 tests from 0 test suites ran")
  add_executable(${program} ${stem}.cpp)
  target_link_libraries(${program} PRIVATE tcnca_development GTest::gtest_main ${test_UNPARSED_ARGUMENTS})
  target_include_directories(${program} PRIVATE ${tcnca_test_folder})
  target_compile_options(${program} PRIVATE -O1)  # takes 0.6 of the time to compile
  add_test(NAME ${program}.cpu COMMAND ${program} --gtest_filter=-*fiber* --gtest_brief=1)
  set_tests_properties(${program}.cpu PROPERTIES LABELS cpu FAIL_REGULAR_EXPRESSION "${nothing}")
  if(test_FIBER)
    add_test(NAME ${program}.fiber COMMAND ${program} --gtest_filter=*fiber* --gtest_brief=1)
    set_tests_properties(${program}.fiber PROPERTIES LABELS fiber FAIL_REGULAR_EXPRESSION "${nothing}")
  endif()
endfunction()
