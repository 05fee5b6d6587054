// Two CAF programs talk over UCX. One greets:       caf_over_ucx --serve HOST:PORT
// the other asks, with one large buffer:            caf_over_ucx --connect HOST:PORT [--name NAME]
// Nothing else of Troupe is used. Over the network: --secret-file FILE at both ends.
#include "troupe/transport/caf.hpp"

#include <caf/all.hpp>
#ifdef WITH_CAF_IO
#include <caf/io/all.hpp>
#endif

#include <iostream>
#include <map>

using troupe::net::shared_bytes;
using troupe::net::wire;

using greeter = caf::typed_actor<caf::replies_to<std::string>::with<std::string>,
                                 caf::replies_to<shared_bytes>::with<std::uint64_t>>;

/// Ends when told so by the end of whoever it is linked to.
greeter::behavior_type greet(greeter::pointer, int /*CAF wants an argument*/) {
  return {
      [](const std::string& name) { return "Good morrow, " + name + "!"; },
      // The buffer is what UCX received into: no copy was made for CAF.
      [](const shared_bytes& x) { return static_cast<std::uint64_t>(x.size()); },
  };
}

/// Says what went wrong. @return the exit status
int failed(caf::actor_system& sys, const caf::error& why) {
  std::cerr << "caf_over_ucx: " << sys.render(why) << '\n';
  return 1;
}

int serve(caf::actor_system& sys, const troupe::net::address& where) {
  auto& net = wire::of(sys);
  const auto who = sys.spawn(greet, 0);
  net.publish("greeter", who);
  const auto at = net.listen(where);
  if (!at)
    return failed(sys, at.error());
  std::cout << "listening at " << to_string(*at) << std::endl;
  caf::scoped_actor self{sys};
  self->wait_for(who); // Until a guest sends it an exit.
  return 0;
}

int ask(caf::actor_system& sys, const troupe::net::address& where, const std::string& name) {
  auto& net = wire::of(sys);
  const auto node = net.connect(where);
  if (!node)
    return failed(sys, node.error());
  const auto who = net.lookup<greeter>(*node, "greeter");
  if (!who)
    return failed(sys, who.error());
  int status = 0;
  caf::scoped_actor self{sys};
  const auto bad = [&](const caf::error& e) { status = failed(sys, e); };
  self->request(*who, std::chrono::seconds{10}, name)
      .receive([](const std::string& text) { std::cout << text << std::endl; }, bad);
  const auto bytes = shared_bytes::adopt(std::vector<std::byte>(16 << 20));
  self->request(*who, std::chrono::seconds{10}, bytes)
      .receive([](std::uint64_t n) { std::cout << "it got " << n << " bytes" << std::endl; }, bad);
  for (const auto& peer : net.stats())
    std::cout << "over " << peer.lanes << std::endl;
  self->monitor(*who);
  self->send_exit(*who, caf::exit_reason::user_shutdown);
  self->receive([](const caf::down_msg&) { std::cout << "it has left" << std::endl; });
  return status;
}

int main(int argc, char** argv) {
  std::map<std::string, std::string> options{{"--serve", ""}};
  for (int i = 1; i < argc; ++i)
    if (const std::string key = argv[i]; key.starts_with("--") && i + 1 < argc)
      options[key] = argv[++i];
  caf::actor_system_config cfg;
#ifdef WITH_CAF_IO
  cfg.load<caf::io::middleman>();
#endif
  cfg.load<wire>();
  if (options.contains("--secret-file"))
    caf::put(cfg.content, "wire.secret-file", options["--secret-file"]);
  caf::actor_system sys{cfg};
  const bool connects = options.contains("--connect");
  const auto text = connects ? options["--connect"] : options["--serve"];
  const auto where = troupe::net::parse_address(text.empty() ? "127.0.0.1:0" : text);
  if (!where)
    return failed(sys, troupe::net::to_caf_error(where.error()));
  return connects ? ask(sys, *where, options.contains("--name") ? options["--name"] : "stranger")
                  : serve(sys, *where);
}
