# The simulated executor is a library of its own: it needs no kernel and no model.
troupe_add_library(engine_simulated
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/executor_base.cpp ${CMAKE_CURRENT_LIST_DIR}/simulated.cpp ${CMAKE_CURRENT_LIST_DIR}/simulated_load.cpp
  TESTS ${CMAKE_CURRENT_LIST_DIR}/simulated.test.cpp
  DEPS troupe_engine_kv troupe_engine_request fmt::fmt
  PRIVATE_DEPS troupe_engine_sched nlohmann_json::nlohmann_json) # sched: for its test
