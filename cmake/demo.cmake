# The script of the target `demo`: executes three programs, with results in RESULTS, and writes the page REPORT.
#   cmake -D CONV_VS_FFT=... -D RECALL=... -D LANGUAGE=... -D TEXT=... -D RESULTS=... -D REPORT=... -P demo.cmake
# The environment variable TCNCA_DEMO_SECONDS is the time limit; the default is three minutes. With less time the report
# has the same sections with fewer lengths and less training, and says so.
cmake_minimum_required(VERSION 3.23)
set(full 180)
set(conv_seconds 75)
set(model_seconds 30)
set(conv_lengths 1024,4096,16384,65536,131072)
set(short_form "")
include(${CMAKE_CURRENT_LIST_DIR}/demo_seconds.cmake)
if(NOT seconds STREQUAL "")
  # Five models are trained; an eighth of the time is left for everything else.
  math(EXPR model_seconds "${seconds} / 8")
  math(EXPR conv_seconds "${seconds} / 4")
  if(seconds LESS full)
    set(conv_lengths 1024,16384)
    string(CONCAT short_form "**Short form: TCNCA_DEMO_SECONDS is ${seconds}. In the first table the lengths 4096, "
      "65536 and 131072 were left out and its rows were measured for ${conv_seconds} seconds instead of 75. Each model "
      "was trained for ${model_seconds} seconds instead of 30: their results mean little.**\n\n")
  else()
    math(EXPR model_seconds "${seconds} * 2 / 15")
    math(EXPR conv_seconds "${seconds} / 3")
  endif()
endif()
string(TIMESTAMP began %s)

# run(<sentence> <command>...): output goes to the terminal; a failure ends the script.
function(run sentence)
  message("\n--- ${sentence}")
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "failed (${failed}): ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE ${RESULTS})
file(MAKE_DIRECTORY ${RESULTS})
run("Convolution stacks against the FFT recurrence" ${CONV_VS_FFT} --dtype fp32 --lengths ${conv_lengths}
  --time-limit ${conv_seconds} --output ${RESULTS}/conv_vs_fft.json)
# Models are trained for equal times: spinning threads would distort them on a machine that other programs use.
set(ENV{OMP_WAIT_POLICY} passive)
run("Associative recall: ${model_seconds} seconds per model" ${RECALL} --sweep --lengths 40 --vocabularies 20
  --models tcnca-simple mega --time-limit ${model_seconds} --output ${RESULTS}/recall)
run("Characters of real text: ${model_seconds} seconds per model" ${LANGUAGE} --text ${TEXT} --side-by-side
  --time-limit ${model_seconds} --every 100 --output ${RESULTS}/language)
message("\n--- Text that the TCNCA model generates")
execute_process(COMMAND ${LANGUAGE} --checkpoint ${RESULTS}/language/tcnca/checkpoint --prompt "The " --generate 600
                OUTPUT_FILE ${RESULTS}/language/sample.txt RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "failed (${failed}): generation")
endif()

foreach(part conv_vs_fft.md recall/results.md language/side_by_side.md language/sample.txt)
  file(READ ${RESULTS}/${part} text)
  string(STRIP "${text}" text)
  string(MAKE_C_IDENTIFIER ${part} name)
  set(${name} "${text}")
endforeach()
string(REPLACE "\n" "\n> " sample "> ${language_sample_txt}")
cmake_path(GET REPORT PARENT_PATH folder)
cmake_path(RELATIVE_PATH RESULTS BASE_DIRECTORY ${folder} OUTPUT_VARIABLE results)
file(READ ${RESULTS}/conv_vs_fft.json summary)
string(JSON commit GET "${summary}" machine commit)  # of the programs, not of the tree
cmake_host_system_information(RESULT processor QUERY PROCESSOR_DESCRIPTION)
cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
string(TIMESTAMP now "%Y-%m-%d %H:%M UTC" UTC)
string(TIMESTAMP ended %s)
math(EXPR seconds "${ended} - ${began}")

file(WRITE ${REPORT} "# TCNCA beside MEGA, on this machine

${now}, commit ${commit}, ${processor}, ${cores} cores; ${seconds} seconds in all.

${short_form}## Dilated convolutions against the FFT recurrence

${conv_vs_fft_md}

![speed-up over the FFT against length](${results}/speedup.svg)

## Associative recall

A model reads pairs of keys and values and is asked for the value of one key: accuracy on 500 unseen sequences, one run
per model. The time until learning begins varies with seed and learning rate.

${recall_results_md}

## Characters of real text

The same layers, text and time; only the mixer along the sequence differs. Bits per character (bpc) of unseen text.

${language_side_by_side_md}

![bits per character against steps and seconds](${results}/language/side_by_side.svg)

Text that the TCNCA model generated after \"The \":

${sample}
")
message("\nWrote ${REPORT} (${seconds} s)")
