// Test support: what plugin.test.cpp opens. With TROUPE_TEST_ENTRY a library of another interface,
// without it a library that holds no executors.
#include "engine/exec/plugin.hpp"

#ifdef TROUPE_TEST_ENTRY
extern "C" const troupe::engine::executor_plugin* troupe_executor_plugin() {
  static const troupe::engine::executor_plugin plugin{
      .api_version = 999, .build = "another build", .make = nullptr};
  return &plugin;
}
#else
extern "C" int troupe_test_nothing() { return 0; }
#endif
