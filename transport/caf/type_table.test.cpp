#include "transport/caf/type_table.hpp"
#include "transport/caf/testing.hpp"

#include <catch2/catch.hpp>

using namespace troupe::net;
using namespace troupe::net::seam;
using test::sample;

namespace {

struct other {
  std::int32_t number = 0;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, other& x) {
  return f(x.number);
}

struct types_config : caf::actor_system_config {
  types_config() { set("scheduler.max-threads", 1); }
  types_config& with_sample(const char* name = "sample") {
    add_message_type<sample>(name);
    return *this;
  }
  types_config& with_other() {
    add_message_type<other>("other");
    return *this;
  }
};

std::vector<char> saved(caf::actor_system& sys, const type_table& types, const caf::message& what) {
  std::vector<char> out;
  caf::binary_serializer sink{sys, out};
  REQUIRE(!types.save(sink, what.content()));
  return out;
}

caf::error loaded(caf::actor_system& sys, const type_table& types, const std::vector<char>& from,
                  caf::message& what) {
  caf::binary_deserializer source{sys, from};
  return types.load(source, what);
}

} // namespace

TEST_CASE("messages travel with numbers for their types", "[net][caf]") {
  types_config cfg;
  cfg.with_sample().with_other();
  caf::actor_system sys{cfg};
  const type_table types{cfg, true};
  const auto what = caf::make_message(test::echo_atom::value, sample{7, "seven", {}},
                                      std::vector<char>(64, 'x'), other{3});
  const auto bytes = saved(sys, types, what);
  const std::string text{bytes.begin(), bytes.end()};
  CHECK(text.find("sample") == std::string::npos);
  caf::message back;
  REQUIRE(!loaded(sys, types, bytes, back));
  REQUIRE(back.match_elements<caf::atom_value, sample, std::vector<char>, other>());
  CHECK(back.get_as<sample>(1).text == "seven");
  CHECK(back.get_as<other>(3).number == 3);
  // An atom, 64 characters, and no name of either.
  CHECK(saved(sys, types, caf::make_message(test::echo_atom::value, std::vector<char>(64, 'x')))
            .size() <= 80);
}

TEST_CASE("types that are not agreed on travel by name", "[net][caf]") {
  types_config cfg;
  cfg.with_sample();
  caf::actor_system sys{cfg};
  const type_table types{cfg, false};
  const auto bytes = saved(sys, types, caf::make_message(sample{7, "seven", {}}));
  CHECK(std::string{bytes.begin(), bytes.end()}.find("sample") != std::string::npos);
  caf::message back;
  REQUIRE(!loaded(sys, types, bytes, back));
  CHECK(back.get_as<sample>(0).number == 7);
}

TEST_CASE("tables agree when names and numbers do", "[net][caf]") {
  types_config one, turned, fewer, renamed;
  one.with_sample().with_other();
  turned.with_other().with_sample();
  fewer.with_sample();
  renamed.with_sample("simple").with_other();
  CHECK(type_table{one, true}.hash() == type_table{turned, true}.hash());
  CHECK(type_table{one, true}.hash() != type_table{fewer, true}.hash());
  CHECK(type_table{one, true}.hash() != type_table{renamed, true}.hash());
  // The order of registration changes no number.
  caf::actor_system sys{one};
  const auto what = caf::make_message(sample{1, "x", {}}, other{2});
  CHECK(saved(sys, type_table{one, true}, what) == saved(sys, type_table{turned, true}, what));
}

TEST_CASE("what cannot be numbered or read is an error", "[net][caf]") {
  types_config cfg;
  cfg.with_sample();
  caf::actor_system sys{cfg};
  const type_table types{cfg, true};
  std::vector<char> out;
  caf::binary_serializer sink{sys, out};
  const auto unknown = caf::make_message(other{1});
  CHECK(types.save(sink, unknown.content()) == caf::sec::unknown_type);
  caf::message back;
  auto bytes = saved(sys, types, caf::make_message(sample{7, "seven", {}}, std::int32_t{4}));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    CHECK(loaded(sys, types, {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)},
                 back));
  }
  // A number that is none of CAF's, none of the table; and far too many elements.
  for (std::uint16_t number : {std::uint16_t{200}, std::uint16_t{400}}) {
    std::vector<char> forged;
    std::uint16_t count = 1;
    REQUIRE(!caf::binary_serializer{sys, forged}(count, number));
    CHECK(loaded(sys, types, forged, back) == caf::sec::unknown_type);
  }
  std::vector<char> forged;
  std::uint16_t count = 65535;
  REQUIRE(!caf::binary_serializer{sys, forged}(count));
  CHECK(loaded(sys, types, forged, back) == caf::sec::unknown_type);
}
