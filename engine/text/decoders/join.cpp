#include "engine/text/decoders/decoder.hpp"

namespace troupe::engine::text {

namespace {

/// Puts a space between tokens.
class join final : public decoder {
public:
  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    if (next.begins_token && state.count++ != 0)
      out.add(" ", true, true);
    out.add(next.text, next.begins_token, next.ends_token);
  }

  void finish(decoder_state& /*state*/, fragments& /*out*/) const override {}
};

} // namespace

decoder_ptr make_join() { return std::make_unique<join>(); }

} // namespace troupe::engine::text
