#include "engine/text/decoders/decoder.hpp"

#include <array>
#include <utility>

namespace troupe::engine::text {

namespace {

constexpr std::array rows{
    part_row<decoder>{"ByteLevel", make_byte_level_decoder},
    part_row<decoder>{"ByteFallback", make_byte_fallback},
    part_row<decoder>{"Fuse", make_fuse},
    part_row<decoder>{"Replace", make_replace_decoder},
    part_row<decoder>{"Strip", make_strip_decoder},
};

/// More stages than any tokenizer has; each holds a state in every stream.
constexpr std::size_t max_stages = 64;

/// Appends the stages of the decoder at `at`, those of a sequence one by one.
result<void> append_stages(const json_view& at, std::vector<decoder_ptr>& stages) {
  if (at.depth() > max_part_depth || stages.size() >= max_stages)
    return at.refuse(errc::unsupported, "there are too many decoders");
  const auto type = at.text("type");
  if (!type)
    return fail(type.error());
  if (*type != "Sequence") {
    auto stage = make_part<decoder>(at, "decoder", rows);
    if (!stage)
      return fail(stage.error());
    stages.push_back(std::move(*stage));
    return {};
  }
  const auto list = at.child("decoders");
  if (!list)
    return fail(list.error());
  const auto elements = list->elements();
  if (!elements)
    return fail(elements.error());
  for (const json_view& element : *elements)
    if (auto done = append_stages(element, stages); !done)
      return done;
  return {};
}

} // namespace

result<std::vector<decoder_ptr>> make_decoders(const json_view* at) {
  std::vector<decoder_ptr> stages;
  if (at == nullptr) {
    stages.push_back(make_join());
    return stages;
  }
  if (auto done = append_stages(*at, stages); !done)
    return fail(done.error());
  return stages;
}

} // namespace troupe::engine::text
