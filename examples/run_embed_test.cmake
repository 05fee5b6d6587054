# Installs Troupe into a prefix, builds the example against it as a project of its own, and runs it.
set(prefix ${BUILD_DIR}/embed-prefix)
set(build ${BUILD_DIR}/embed-io-${WITH_IO})
if(SANITIZE)
  # CAF 0.17's intrusive queues downcast their sentinel, which -fsanitize=vptr forbids.
  set(flags "-DCMAKE_CXX_FLAGS=-fsanitize=${SANITIZE} -fno-sanitize=vptr")
endif()
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix})
run(${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${build} -G Ninja -DCMAKE_PREFIX_PATH=${prefix}
    -DEMBED_WITH_CAF_IO=${WITH_IO} ${flags})
run(${CMAKE_COMMAND} --build ${build})
run(${build}/embed_in_caf_app ${CLUSTER})

# The same program asks a cluster of three processes.
run(bash ${CMAKE_CURRENT_LIST_DIR}/run_connect_test.sh ${BUILD_DIR}/bin/troupe ${build}/embed_in_caf_app ${CLUSTER})
