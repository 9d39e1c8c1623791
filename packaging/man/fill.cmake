# Puts the settings, as TOOL writes them, into the manual page's source: IN with @SETTINGS@ -> OUT.
execute_process(COMMAND ${TOOL} manual OUTPUT_VARIABLE SETTINGS RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${TOOL} manual failed: ${result}")
endif()
configure_file(${IN} ${OUT} @ONLY)
