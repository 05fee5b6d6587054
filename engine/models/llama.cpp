// Llama 2 and 3, and Mistral without its sliding window: the plain pre-norm decoder.
#include "engine/models/decoder.hpp"
#include "engine/models/families.hpp"

namespace troupe::engine {

result<std::unique_ptr<model>> load_llama(const load_context& from) {
  return load_decoder(from, {});
}

} // namespace troupe::engine
