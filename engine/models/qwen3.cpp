// Qwen3, dense: the pre-norm decoder with norms over each head of q and k.
#include "engine/models/decoder.hpp"
#include "engine/models/families.hpp"

namespace troupe::engine {

result<std::unique_ptr<model>> load_qwen3(const load_context& from) {
  return load_decoder(from, {.qk_norm = true});
}

} // namespace troupe::engine
