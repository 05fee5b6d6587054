# Warnings, sanitizers and ccache, the same for every target.
find_program(TROUPE_CCACHE ccache)
if(TROUPE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TROUPE_CCACHE})
endif()

add_library(troupe_compile_flags INTERFACE)
# What nvcc makes of a file for the host's compiler is not pedantic.
target_compile_options(troupe_compile_flags INTERFACE -Wall -Wextra $<$<COMPILE_LANGUAGE:CXX>:-Wpedantic>
  # False alarms of g++ 12 when it optimises.
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-Wno-restrict>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-Wno-maybe-uninitialized>)
if(TROUPE_SANITIZE)
  target_compile_options(troupe_compile_flags INTERFACE
    -fsanitize=${TROUPE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
    -Wno-maybe-uninitialized) # false alarms of g++ 12 under -fsanitize
  target_link_options(troupe_compile_flags INTERFACE -fsanitize=${TROUPE_SANITIZE})
endif()
