#include "engine/kv/block_hash.hpp"

#include <catch2/catch.hpp>

#include <set>
#include <vector>

using namespace troupe;
using namespace troupe::engine;

namespace {

block_hash hash_of(std::uint64_t key, std::uint64_t parent, const std::vector<token_id>& tokens,
                   std::string_view salt = {}) {
  return block_hasher{key}(block_hash{parent}, tokens, salt);
}

} // namespace

TEST_CASE("the keyed hash is SipHash-2-4 on whole words", "[kv]") {
  // The published vector for the key 00..0f and the eight bytes 00..07.
  keyed_hash hash{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
  hash.add(0x0706050403020100U);
  CHECK(hash.finish() == 0x93f5f5799a932462U);
}

TEST_CASE("everything that names a block enters its hash", "[kv]") {
  const std::vector<token_id> tokens{1, 2, 3, 4};
  std::set<block_hash> seen;
  seen.insert(hash_of(7, 0, tokens));
  seen.insert(hash_of(8, 0, tokens));
  seen.insert(hash_of(7, 5, tokens));
  seen.insert(hash_of(7, 0, {2, 1, 3, 4}));
  seen.insert(hash_of(7, 0, {1, 2, 3}));
  seen.insert(hash_of(7, 0, {1, 2, 3, 0}));
  seen.insert(hash_of(7, 0, tokens, "a"));
  seen.insert(hash_of(7, 0, tokens, std::string_view{"a\0", 2}));
  seen.insert(hash_of(7, 0, tokens, "longer than one word"));
  CHECK(seen.size() == 9);
}

TEST_CASE("the salt enters the first block only", "[kv]") {
  const std::vector<token_id> tokens{1, 2, 3, 4};
  CHECK(hash_of(7, 5, tokens, "a") == hash_of(7, 5, tokens, "b"));
}

TEST_CASE("hashes are the same on every machine", "[kv]") {
  static_assert(block_hasher{1}(block_hash{}, std::span<const token_id>{}, {}) != block_hash{});
  CHECK(hash_of(7, 0, {1, 2, 3, 4}) == hash_of(7, 0, {1, 2, 3, 4}));
}
