#include "engine/text/pre_tokenizers/pre_tokenizer.hpp"

#include <array>

namespace troupe::engine::text {

namespace {

constexpr std::array rows{
    part_row<pre_tokenizer>{"ByteLevel", make_byte_level},
    part_row<pre_tokenizer>{"Digits", make_digits},
    part_row<pre_tokenizer>{"Split", make_split},
    part_row<pre_tokenizer>{"Sequence", make_pre_tokenizer_sequence},
};

} // namespace

result<pre_tokenizer_ptr> make_pre_tokenizer(const json_view& at) {
  return make_part<pre_tokenizer>(at, "pre-tokenizer", rows);
}

} // namespace troupe::engine::text
