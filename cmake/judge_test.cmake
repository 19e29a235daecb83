# Read by the configuration and by ctest. tcnca_judge_test(<test> <label>): what the output of a GoogleTest program means.
# Nothing to run is a failure: no label is registered that has no test. All of it skipped and nothing failed: GoogleTest calls that passed, ctest shall
# say skipped; for CUDA under TCNCA_REQUIRE_CUDA any skip is a failure.
function(tcnca_judge_test name label)
  set(nothing "0 tests from 0 test suites ran")
  set(all_skipped "PASSED  \\] 0 tests\\.\n(\\[  SKIPPED \\][^\n]*\n)+$")
  if(TCNCA_REQUIRE_CUDA AND label STREQUAL cuda)
    set_tests_properties(${name} PROPERTIES LABELS ${label} ENVIRONMENT TCNCA_REQUIRE_CUDA=1 FAIL_REGULAR_EXPRESSION "${nothing};\\[  SKIPPED \\]")
  else()
    set_tests_properties(${name} PROPERTIES LABELS ${label} FAIL_REGULAR_EXPRESSION "${nothing}" SKIP_REGULAR_EXPRESSION "${all_skipped}")
  endif()
endfunction()
