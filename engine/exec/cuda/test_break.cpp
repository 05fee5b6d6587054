// Test support: a library that CUDA loads into any program (CUDA_INJECTION64_PATH). Whenever there
// is a file /tmp/troupe-break-device it takes it away and writes where the GPU has no memory, which
// spoils the GPU for the process.
//   g++ -O2 -std=c++20 -shared -fPIC -I/usr/local/cuda/include test_break.cpp -o break.so
#include <cuda.h>
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

namespace {

constexpr auto sign = "/tmp/troupe-break-device";

constexpr auto program = R"(
.version 8.0
.target sm_90
.address_size 64
.visible .entry wrong() {
  .reg .b64 %where;
  .reg .b32 %what;
  mov.u64 %where, 256;
  mov.u32 %what, 1;
  st.global.u32 [%where], %what;
  ret;
}
)";

template <class F>
F of_driver(const char* name) {
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  return reinterpret_cast<F>(dlsym(driver, name));
}

int spoil() {
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUfunction wrong = nullptr;
  if (int why =
          of_driver<decltype(&cuDevicePrimaryCtxRetain)>("cuDevicePrimaryCtxRetain")(&context, 0))
    return why;
  if (int why = of_driver<decltype(&cuCtxSetCurrent)>("cuCtxSetCurrent")(context))
    return why;
  if (int why = of_driver<decltype(&cuModuleLoadData)>("cuModuleLoadData")(&module, program))
    return why;
  if (int why =
          of_driver<decltype(&cuModuleGetFunction)>("cuModuleGetFunction")(&wrong, module, "wrong"))
    return why;
  return of_driver<decltype(&cuLaunchKernel)>("cuLaunchKernel")(wrong, 1, 1, 1, 1, 1, 1, 0, nullptr,
                                                                nullptr, nullptr);
}

void watch() {
  while (unlink(sign) != 0)
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
  std::fprintf(stderr, "the device is broken on purpose (%d)\n", spoil());
}

} // namespace

extern "C" int InitializeInjection() {
  std::thread{watch}.detach();
  return 1;
}
