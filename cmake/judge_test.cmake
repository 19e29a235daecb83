# Included by the configuration and by ctest. tcnca_judge_test(TEST LABEL): how ctest reads the output of a GoogleTest
# program. No test run: failed. All tests skipped: skipped (GoogleTest returns success). For CUDA under
# TCNCA_REQUIRE_CUDA any skip: failed.
function(tcnca_judge_test name label)
  set(nothing "0 tests from 0 test suites ran")
  set(all_skipped "PASSED  \\] 0 tests\\.\n(\\[  SKIPPED \\][^\n]*\n)+$")
  if(TCNCA_REQUIRE_CUDA AND label STREQUAL cuda)
    set_tests_properties(${name} PROPERTIES LABELS ${label} ENVIRONMENT TCNCA_REQUIRE_CUDA=1
      FAIL_REGULAR_EXPRESSION "${nothing};\\[  SKIPPED \\]")
  else()
    set_tests_properties(${name} PROPERTIES LABELS ${label}
      FAIL_REGULAR_EXPRESSION "${nothing}" SKIP_REGULAR_EXPRESSION "${all_skipped}")
  endif()
endfunction()
