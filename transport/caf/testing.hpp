#pragma once

#include "troupe/transport/caf.hpp"

#include <caf/all.hpp>

#include <cstdint>
#include <string>
#include <vector>

/// Test support: what the tests of the seam and their helper process send to each other.
namespace troupe::net::test {

/// A message type of a program's own.
struct sample {
  std::int32_t number = 0;
  std::string text;
  std::vector<caf::actor> handles;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, sample& x) {
  return f(caf::meta::type_name("sample"), x.number, x.text, x.handles);
}

using adder = caf::typed_actor<caf::replies_to<std::int32_t, std::int32_t>::with<std::int32_t>>;

/// One actor system with the module, as a program would make it.
struct program_config : caf::actor_system_config {
  explicit program_config(std::int64_t dead_after_ms = 10000,
                          const std::string& lanes = "posix,cma,tcp") {
    load<wire>();
    add_message_type<sample>("sample");
    caf::put(content, "wire.devices", std::string{"lo"});
    caf::put(content, "wire.transports", lanes);
    caf::put(content, "wire.dead-after-ms", dead_after_ms);
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 2);
  }
};

using echo_atom = caf::atom_constant<caf::atom("echo")>;
using call_atom = caf::atom_constant<caf::atom("call")>;
using quit_atom = caf::atom_constant<caf::atom("quit")>;
using give_atom = caf::atom_constant<caf::atom("give")>;
using hold_atom = caf::atom_constant<caf::atom("hold")>;
using note_atom = caf::atom_constant<caf::atom("note")>;

/// What a helper serves under the name "server". The argument is unused: CAF wants one.
inline caf::behavior server(caf::event_based_actor* self, int) {
  auto kept = std::make_shared<std::vector<caf::response_promise>>();
  auto seen = std::make_shared<std::vector<std::int32_t>>();
  self->set_default_handler(caf::print_and_drop);
  return {
      [](echo_atom, const sample& x) { return x; },
      [](echo_atom, const shared_bytes& x) { return x; },
      [](echo_atom, std::int32_t x) { return x; },
      [](echo_atom, const std::vector<char>& x) { return x; },
      [=](call_atom, const caf::actor& back, std::int32_t x) { self->send(back, note_atom{}, x); },
      [=](quit_atom) { self->quit(caf::exit_reason::user_shutdown); },
      // An answer that never comes.
      [=](hold_atom, std::int32_t) {
        kept->push_back(self->make_response_promise());
        return kept->back();
      },
      [=](note_atom, std::int32_t x) { seen->push_back(x); },
      [=](note_atom, std::int32_t x, const shared_bytes&) { seen->push_back(x); },
      [=](give_atom) {
        std::string out;
        for (const auto x : *seen)
          out += std::to_string(x) + ' ';
        return out;
      },
      // Not a message type of this program, which shows only when it is to be serialised.
      [](give_atom, std::int32_t x) { return std::vector<std::int32_t>{x}; },
  };
}

inline adder::behavior_type add(adder::pointer, int) {
  return {[](std::int32_t a, std::int32_t b) { return a + b; }};
}

} // namespace troupe::net::test
