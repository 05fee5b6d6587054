#include "engine/text/post_processors/post_processor.hpp"

namespace troupe::engine::text {

namespace {

/// Trims the offsets of tokens in tokenizers; tokens have no offsets here, so it does nothing.
class byte_level_post final : public post_processor {
public:
  void apply(std::vector<token_id>& /*ids*/, bool /*add_special_tokens*/) const override {}
};

} // namespace

result<post_processor_ptr> make_byte_level_post(const json_view& /*at*/) {
  return std::make_unique<byte_level_post>();
}

} // namespace troupe::engine::text
