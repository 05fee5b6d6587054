#include "engine/text/post_processors/post_processor.hpp"

#include <array>

namespace troupe::engine::text {

namespace {

constexpr std::array rows{
    part_row<post_processor>{"ByteLevel", make_byte_level_post},
    part_row<post_processor>{"TemplateProcessing", make_template_processing},
    part_row<post_processor>{"Sequence", make_post_processor_sequence},
};

} // namespace

result<post_processor_ptr> make_post_processor(const json_view& at) {
  return make_part<post_processor>(at, "post-processor", rows);
}

} // namespace troupe::engine::text
