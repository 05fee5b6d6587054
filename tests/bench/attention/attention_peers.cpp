#include "tests/bench/attention/attention_peer.hpp"

#ifdef TROUPE_WITH_FLASHINFER
#include "tests/bench/attention/flashinfer_peer.hpp"
#endif

#include <fmt/core.h>

namespace troupe::bench {

std::vector<std::unique_ptr<attention_peer>> attention_peers() {
  std::vector<std::unique_ptr<attention_peer>> made;
#ifdef TROUPE_WITH_FLASHINFER
  made.push_back(make_flashinfer_decode());
  made.push_back(make_flashinfer_tiles());
  made.push_back(make_flashinfer_hopper());
  made.push_back(make_flashinfer_persistent());
#else
  fmt::print("attention: without FlashInfer, whose headers were not found when this was built\n");
#endif
#ifdef TROUPE_WITH_CUDNN
  if (auto one = make_cudnn_peer())
    made.push_back(std::move(*one));
  else
    fmt::print("attention: without cuDNN: {}\n", one.error().note);
#else
  fmt::print("attention: without cuDNN, whose headers were not found when this was built\n");
#endif
  return made;
}

} // namespace troupe::bench
