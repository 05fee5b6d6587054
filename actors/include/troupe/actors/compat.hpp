#pragma once

/// The one place where application code meets CAF's version. Everything else in actors/ spells
/// inspection, typed signatures, state, error rendering and sending through these names, so that
/// CAF 1.x needs changes here (in transport/caf, and in backend_host) and nowhere else.

#include "troupe/base/error.hpp"

#include <caf/all.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#if CAF_VERSION >= 1800
#error "Troupe speaks CAF 0.17; a newer CAF needs its own branch in this header"
#endif

/// Makes `type` a message: TROUPE_INSPECT(point, x, y). Stands in the namespace of the type.
#define TROUPE_INSPECT(type, ...)                                                                  \
  template <class Inspector>                                                                       \
  typename Inspector::result_type inspect(Inspector& f, type& o) {                                 \
    return ::troupe::actors::detail::inspect_members(                                              \
        f, #type, [&](auto&& visit) { return visit(TROUPE_INSPECT_EACH(__VA_ARGS__)); });          \
  }
#define TROUPE_INSPECT_CAT_(a, b) a##b
#define TROUPE_INSPECT_CAT(a, b) TROUPE_INSPECT_CAT_(a, b)
#define TROUPE_INSPECT_PICK(_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15, _16, \
                            _17, _18, _19, _20, n, ...)                                            \
  n
#define TROUPE_INSPECT_COUNT(...)                                                                  \
  TROUPE_INSPECT_PICK(__VA_ARGS__, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4,   \
                      3, 2, 1)
#define TROUPE_INSPECT_1(a) o.a
#define TROUPE_INSPECT_2(a, ...) o.a, TROUPE_INSPECT_1(__VA_ARGS__)
#define TROUPE_INSPECT_3(a, ...) o.a, TROUPE_INSPECT_2(__VA_ARGS__)
#define TROUPE_INSPECT_4(a, ...) o.a, TROUPE_INSPECT_3(__VA_ARGS__)
#define TROUPE_INSPECT_5(a, ...) o.a, TROUPE_INSPECT_4(__VA_ARGS__)
#define TROUPE_INSPECT_6(a, ...) o.a, TROUPE_INSPECT_5(__VA_ARGS__)
#define TROUPE_INSPECT_7(a, ...) o.a, TROUPE_INSPECT_6(__VA_ARGS__)
#define TROUPE_INSPECT_8(a, ...) o.a, TROUPE_INSPECT_7(__VA_ARGS__)
#define TROUPE_INSPECT_9(a, ...) o.a, TROUPE_INSPECT_8(__VA_ARGS__)
#define TROUPE_INSPECT_10(a, ...) o.a, TROUPE_INSPECT_9(__VA_ARGS__)
#define TROUPE_INSPECT_11(a, ...) o.a, TROUPE_INSPECT_10(__VA_ARGS__)
#define TROUPE_INSPECT_12(a, ...) o.a, TROUPE_INSPECT_11(__VA_ARGS__)
#define TROUPE_INSPECT_13(a, ...) o.a, TROUPE_INSPECT_12(__VA_ARGS__)
#define TROUPE_INSPECT_14(a, ...) o.a, TROUPE_INSPECT_13(__VA_ARGS__)
#define TROUPE_INSPECT_15(a, ...) o.a, TROUPE_INSPECT_14(__VA_ARGS__)
#define TROUPE_INSPECT_16(a, ...) o.a, TROUPE_INSPECT_15(__VA_ARGS__)
#define TROUPE_INSPECT_17(a, ...) o.a, TROUPE_INSPECT_16(__VA_ARGS__)
#define TROUPE_INSPECT_18(a, ...) o.a, TROUPE_INSPECT_17(__VA_ARGS__)
#define TROUPE_INSPECT_19(a, ...) o.a, TROUPE_INSPECT_18(__VA_ARGS__)
#define TROUPE_INSPECT_20(a, ...) o.a, TROUPE_INSPECT_19(__VA_ARGS__)
#define TROUPE_INSPECT_EACH(...)                                                                   \
  TROUPE_INSPECT_CAT(TROUPE_INSPECT_, TROUPE_INSPECT_COUNT(__VA_ARGS__))(__VA_ARGS__)

/// One clause of a typed actor: TROUPE_ANSWERS(result)(inputs...) and TROUPE_TAKES(inputs...).
#define TROUPE_ANSWERS(output, ...) ::caf::replies_to<__VA_ARGS__>::template with<output>
#define TROUPE_TAKES(...) ::caf::reacts_to<__VA_ARGS__>

namespace troupe::actors {

namespace detail {
template <class Inspector, class F>
auto inspect_members(Inspector& f, const char* name, F&& members) {
  return members([&](auto&... xs) { return f(caf::meta::type_name(name), xs...); });
}
} // namespace detail

/// As TROUPE_INSPECT for a type one part of which travels packed: pack() gives its bytes;
/// unpack(bytes) takes them in, and answers false where they are none.
template <class Inspector, class Pack, class Unpack, class... Ts>
typename Inspector::result_type inspect_packed(Inspector& f, const char* name, Pack pack,
                                               Unpack unpack, Ts&... others) {
  std::string bytes;
  if constexpr (Inspector::reads_state)
    bytes = pack();
  const auto load = [&]() -> caf::error {
    if (unpack(std::string_view{bytes}))
      return caf::none;
    return caf::sec::invalid_argument;
  };
  return f(caf::meta::type_name(name), others..., bytes, caf::meta::load_callback(load));
}

/// Wraps an operating error so that it travels as CAF's error type.
[[nodiscard]] inline caf::error to_caf(const error& e) {
  return {static_cast<std::uint8_t>(e.code), caf::atom("troupe"), caf::make_message(e.note)};
}

/// The operating error inside a CAF error; errors of CAF's own become peer_down or internal.
[[nodiscard]] error from_caf(const caf::error& e);
/// Whether to_caf() made it.
[[nodiscard]] bool is_from_troupe(const caf::error& e) noexcept;

/// Sets an option of a configuration, e.g. "wire.name", before the actor system starts.
inline void set_option(caf::actor_system_config& config, const std::string& name,
                       const std::string& value) {
  caf::put(config.content, name, value);
}

/// The state of a stateful actor.
template <class Actor>
[[nodiscard]] auto& state(Actor* self) {
  return self->state;
}

/// Messages that wait in the actor's mailbox. Only for the actor itself.
template <class Actor>
[[nodiscard]] std::uint64_t mailbox_depth(Actor* self) {
  return self->mailbox().size();
}

/// Sends a message that has no sender. Safe from any thread.
template <class Handle, class... Ts>
void post(const Handle& to, Ts&&... xs) {
  caf::anon_send(to, std::forward<Ts>(xs)...);
}

/// Sends from an actor.
template <class Actor, class Handle, class... Ts>
void tell(Actor* self, const Handle& to, Ts&&... xs) {
  self->send(to, std::forward<Ts>(xs)...);
}

/// Sends to oneself after a delay, by the actor's clock.
template <class Actor, class... Ts>
void tell_later(Actor* self, std::chrono::nanoseconds delay, Ts&&... xs) {
  self->delayed_send(self, delay, std::forward<Ts>(xs)...);
}

/// Asks another actor; `.then(on_value, on_error)` takes the answer.
template <class Actor, class Handle, class... Ts>
auto ask(Actor* self, const Handle& to, std::chrono::milliseconds limit, Ts&&... xs) {
  return self->request(to, limit, std::forward<Ts>(xs)...);
}

/// As ask, for as long as both live. Nothing is left with the actor system's clock, whose thread
/// wakes for every limit that it is given.
template <class Actor, class Handle, class... Ts>
auto ask_without_limit(Actor* self, const Handle& to, Ts&&... xs) {
  return self->request(to, caf::infinite, std::forward<Ts>(xs)...);
}

/// Ends one's watch of every actor in a map. What outlives its watchers keeps the memory of each
/// until they have ended their watch.
template <class Actor, class Map>
void stop_watching(Actor* self, const Map& watched) {
  for (const auto& [key, handle] : watched)
    self->demonitor(handle->address());
}

/// Whether two handles or addresses are one actor over one connection. A remote actor that is met
/// again over a new connection has a new proxy, which compares equal to the old one; and the end of
/// the old one may still be on its way in a mailbox.
template <class A, class B>
bool same_proxy(const A& a, const B& b) {
  return caf::actor_cast<caf::actor_control_block*>(a) ==
         caf::actor_cast<caf::actor_control_block*>(b);
}

} // namespace troupe::actors
