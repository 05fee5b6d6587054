#include "engine/text/decoders/decoder.hpp"

namespace troupe::engine::text {

namespace {

/// Makes one token of all, so that later stages see the text as a whole.
class fuse final : public decoder {
public:
  void push(decoder_state& state, const fragment& next, fragments& out) const override {
    out.add(next.text, state.count++ == 0, false);
  }

  void finish(decoder_state& state, fragments& out) const override {
    out.add("", state.count == 0, true);
  }
};

} // namespace

result<decoder_ptr> make_fuse(const json_view& /*at*/) { return std::make_unique<fuse>(); }

} // namespace troupe::engine::text
