# cmake -DFROM=file -DTO=file -DSHA256=hash -P vendor.cmake
# Copies a file, and refuses one that is not the file it was pinned to.
if(NOT EXISTS "${FROM}")
  message(FATAL_ERROR "${FROM} is missing")
endif()
file(SHA256 "${FROM}" found)
if(NOT found STREQUAL SHA256)
  message(FATAL_ERROR "${FROM} has SHA-256 ${found}; agent/admin/web/CMakeLists.txt pins ${SHA256}")
endif()
get_filename_component(folder "${TO}" DIRECTORY)
file(MAKE_DIRECTORY "${folder}")
file(COPY_FILE "${FROM}" "${TO}")
file(TOUCH "${TO}")
