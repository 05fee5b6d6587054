#include "engine/text/models/model.hpp"

#include <array>

namespace troupe::engine::text {

namespace {

constexpr std::array rows{
    part_row<model>{"BPE", make_bpe},
};

} // namespace

result<model_ptr> make_model(const json_view& at) {
  if (!at.find("type") && at.find("merges"))
    return make_bpe(at);
  return make_part<model>(at, "model", rows);
}

} // namespace troupe::engine::text
