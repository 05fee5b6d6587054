# Installs the component `transport` into a prefix, builds the example against it as a project of its own, and runs
# both of its ends, with a secret.
set(prefix ${BUILD_DIR}/wire-prefix)
set(build ${BUILD_DIR}/wire-io-${WITH_IO})
if(SANITIZE)
  # CAF 0.17's intrusive queues downcast their sentinel, which -fsanitize=vptr forbids.
  set(flags "-DCMAKE_CXX_FLAGS=-fsanitize=${SANITIZE} -fno-sanitize=vptr")
endif()
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix} --component transport)
run(${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${build} -G Ninja -DCMAKE_PREFIX_PATH=${prefix} -DWITH_CAF_IO=${WITH_IO} ${flags})
run(${CMAKE_COMMAND} --build ${build})
run(bash ${CMAKE_CURRENT_LIST_DIR}/run_wire_test.sh ${build}/caf_over_ucx ${build})
