# The main job, run as a script by the target `demo`: three programs one after another, their results in RESULTS, and a page of them, REPORT.
#   cmake -D CONV_VS_FFT=... -D RECALL=... -D LANGUAGE=... -D TEXT=... -D RESULTS=... -D REPORT=... -P demo.cmake
# The environment variable TCNCA_DEMO_SECONDS says how long it may take, three minutes where it is not set. In less time the report is as complete, with
# fewer lengths and less training: it says so.
cmake_minimum_required(VERSION 3.23)
set(full 180)
set(conv_seconds 75)
set(model_seconds 30)
set(conv_lengths 1024,4096,16384,65536,131072)
set(short_form "")
include(${CMAKE_CURRENT_LIST_DIR}/demo_seconds.cmake)
if(NOT seconds STREQUAL "")
  # Five models learn; an eighth of the short form is for whatever else is done.
  math(EXPR model_seconds "${seconds} / 8")
  math(EXPR conv_seconds "${seconds} / 4")
  if(seconds LESS full)
    set(conv_lengths 1024,16384)
    set(short_form "**Short form: TCNCA_DEMO_SECONDS is ${seconds}. Of the first table the lengths 4096, 65536 and 131072 were left out, its rows were measured for \
${conv_seconds} seconds instead of 75, and each model learned for ${model_seconds} seconds instead of 30: what they reach says little.**\n\n")
  else()
    math(EXPR model_seconds "${seconds} * 2 / 15")
    math(EXPR conv_seconds "${seconds} / 3")
  endif()
endif()
string(TIMESTAMP began %s)

# run(<sentence> <command>...): output goes on to the terminal, a failure ends the job.
function(run sentence)
  message("\n--- ${sentence}")
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "failed (${failed}): ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE ${RESULTS})
file(MAKE_DIRECTORY ${RESULTS})
run("Convolution stacks against the FFT recurrence" ${CONV_VS_FFT} --dtype fp32 --lengths ${conv_lengths} --time-limit ${conv_seconds} --output ${RESULTS}/conv_vs_fft.json)
# Models have equal time: a thread that spins while it waits would take it from them where others use the processor too.
set(ENV{OMP_WAIT_POLICY} passive)
run("Associative recall: ${model_seconds} seconds a model" ${RECALL} --sweep --lengths 40 --vocabularies 20 --models tcnca-simple mega --time-limit ${model_seconds} --output ${RESULTS}/recall)
run("Characters of real text: ${model_seconds} seconds a model" ${LANGUAGE} --text ${TEXT} --side-by-side --time-limit ${model_seconds} --every 100 --output ${RESULTS}/language)
message("\n--- What the first of them writes")
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
string(JSON commit GET "${summary}" machine commit)  # of what the programs were built, whatever the tree is by now
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

A model reads pairs of keys and values and is asked for the value of one key: accuracy on 500 sequences it has not seen, one run of each model. (How long
learning waits near chance varies with seed and rate.)

${recall_results_md}

## Characters of real text

The same layers, text and time, but for what mixes along time: bits per character (bpc) of text that was not learned from.

${language_side_by_side_md}

![bits per character against steps and seconds](${results}/language/side_by_side.svg)

What the TCNCA model then wrote, after \"The \":

${sample}
")
message("\nWrote ${REPORT} (${seconds} s)")
