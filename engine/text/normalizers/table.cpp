#include "engine/text/normalizers/normalizer.hpp"

#include <array>

namespace troupe::engine::text {

namespace {

constexpr std::array rows{
    part_row<normalizer>{"NFC", make_nfc},
    part_row<normalizer>{"NFD", make_nfd},
    part_row<normalizer>{"NFKC", make_nfkc},
    part_row<normalizer>{"NFKD", make_nfkd},
    part_row<normalizer>{"Lowercase", make_lowercase},
    part_row<normalizer>{"Prepend", make_prepend},
    part_row<normalizer>{"Replace", make_replace_normalizer},
    part_row<normalizer>{"Strip", make_strip_normalizer},
    part_row<normalizer>{"Sequence", make_normalizer_sequence},
};

} // namespace

result<normalizer_ptr> make_normalizer(const json_view& at) {
  return make_part<normalizer>(at, "normalizer", rows);
}

} // namespace troupe::engine::text
