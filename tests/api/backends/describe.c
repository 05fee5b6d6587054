/* A library with a description of its own and no C++ at all: what the check must refuse before it calls anything. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct description {
  uint32_t api_version;
  const char *abi, *name, *base, *base_version;
  void* (*make)(void);
};

static void* make(void) { abort(); }

const struct description* ENTRY(void) {
  static const struct description it = {API, ABI, "strange", BASE, "0.0.1", make};
  return &it;
}
