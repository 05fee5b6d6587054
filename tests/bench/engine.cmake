# bench_engine: the whole CPU executor against the read bandwidth and against peers.
add_executable(bench_engine ${CMAKE_CURRENT_LIST_DIR}/bench_engine.cpp)
target_link_libraries(bench_engine PRIVATE troupe_engine_exec fmt::fmt)
target_include_directories(bench_engine PRIVATE ${PROJECT_SOURCE_DIR})

# bench_stack: the same through the actors.
add_executable(bench_stack ${CMAKE_CURRENT_LIST_DIR}/bench_stack.cpp)
target_link_libraries(bench_stack PRIVATE troupe_actors troupe_config fmt::fmt)
target_include_directories(bench_stack PRIVATE ${PROJECT_SOURCE_DIR})
