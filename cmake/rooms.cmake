# Targets follow the rooms: `minimax_room(ops SOURCES a.cc DEPS core quant)` makes the library minimax_ops
# with the include root src/. UNITY says that no two files of the room have a private name in common: with
# MINIMAX_UNITY they are compiled together. Tests, benches and fuzzers are declared with one line each.

add_library(minimax_flags INTERFACE)
target_compile_options(minimax_flags INTERFACE -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion
                                               -Wno-sign-conversion -fno-math-errno)
# GCC 12 reports false positives inside its own <string> and <regex> headers at -O2.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(minimax_flags INTERFACE -Wno-restrict -Wno-maybe-uninitialized)
endif()
if(MINIMAX_SANITIZE)
  target_compile_options(minimax_flags INTERFACE -fsanitize=${MINIMAX_SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=all)
  target_link_options(minimax_flags INTERFACE -fsanitize=${MINIMAX_SANITIZE})
endif()

# GCC's thread sanitizer does not see the fences that Boost.Asio adds to its locks; the locks are enough.
if(MINIMAX_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(minimax_flags INTERFACE -Wno-tsan)
endif()

function(minimax_room name)
  cmake_parse_arguments(ARG "UNITY" "" "SOURCES;DEPS;LIBRARIES;PUBLIC_LIBRARIES" ${ARGN})
  add_library(minimax_${name} STATIC ${ARG_SOURCES})
  if(MINIMAX_UNITY AND ARG_UNITY)
    set_target_properties(minimax_${name} PROPERTIES UNITY_BUILD ON)
  endif()
  target_include_directories(minimax_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(minimax_${name} PRIVATE minimax_flags ${ARG_LIBRARIES})
  target_link_libraries(minimax_${name} PUBLIC ${ARG_PUBLIC_LIBRARIES})
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(minimax_${name} PUBLIC minimax_${dep})
  endforeach()
endfunction()

# minimax_test(jinja_test SOURCES jinja_test.cc DEPS jinja [LABELS slow] [TIMEOUT 300])
function(minimax_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LIBRARIES;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE minimax_flags GTest::gtest GTest::gtest_main ${ARG_LIBRARIES})
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(${name} PRIVATE minimax_${dep})
  endforeach()
  target_compile_definitions(${name} PRIVATE MINIMAX_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                             MINIMAX_BINARY="${CMAKE_BINARY_DIR}/bin/minimax")
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "cpu;${ARG_LABELS}")
endfunction()

# Tests in Python run in .venv when scripts/install-deps.sh has made it, else in the system's Python.
if(EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python3)
  set(MINIMAX_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python3)
else()
  set(MINIMAX_PYTHON python3)
endif()

# minimax_python_test(check_rooms SCRIPT check_rooms.py [ARGS --self-test] [LABELS slow] [TIMEOUT 300])
function(minimax_python_test name)
  cmake_parse_arguments(ARG "" "SCRIPT;TIMEOUT" "ARGS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${MINIMAX_PYTHON} ${ARG_SCRIPT} ${ARG_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "cpu;python;${ARG_LABELS}")
endfunction()

# minimax_fuzzer(fuzz_jinja SOURCES fuzz_jinja.cc DEPS jinja): seeds live in fuzz/seeds/<name>/.
function(minimax_fuzzer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE minimax_flags ${ARG_LIBRARIES})
  foreach(dep IN LISTS ARG_DEPS)
    target_link_libraries(${name} PRIVATE minimax_${dep})
  endforeach()
endfunction()
