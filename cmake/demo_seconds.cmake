# Reads TCNCA_DEMO_SECONDS, the time limit of the demo, from the environment into `seconds`; empty: not set.
# Included by bench/CMakeLists.txt, so that a wrong value ends a workflow before the build, and by demo.cmake.
set(seconds "$ENV{TCNCA_DEMO_SECONDS}")
if(NOT seconds STREQUAL "" AND
   (NOT seconds MATCHES "^[1-9][0-9]?[0-9]?[0-9]?$" OR seconds LESS 30 OR seconds GREATER 3600))
  message(FATAL_ERROR "TCNCA_DEMO_SECONDS is \"${seconds}\" and must be a whole number from 30 to 3600.")
endif()
