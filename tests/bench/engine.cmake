# bench_engine: the whole CPU executor against the read bandwidth and against peers.
add_executable(bench_engine ${CMAKE_CURRENT_LIST_DIR}/bench_engine.cpp)
target_link_libraries(bench_engine PRIVATE troupe_engine_exec fmt::fmt)
target_include_directories(bench_engine PRIVATE ${PROJECT_SOURCE_DIR})

# bench_stack: the same through the actors.
add_executable(bench_stack ${CMAKE_CURRENT_LIST_DIR}/bench_stack.cpp)
target_link_libraries(bench_stack PRIVATE troupe_actors troupe_config fmt::fmt)
target_include_directories(bench_stack PRIVATE ${PROJECT_SOURCE_DIR})

# bench_loads: the scheduler's policy on a device whose steps are only reckoned.
add_executable(bench_loads ${CMAKE_CURRENT_LIST_DIR}/bench_loads.cpp)
target_link_libraries(bench_loads PRIVATE troupe_engine_sched troupe_engine_kv fmt::fmt)
target_include_directories(bench_loads PRIVATE ${PROJECT_SOURCE_DIR})
