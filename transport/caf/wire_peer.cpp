// A program of its own for process.test.cpp: serves until its standard input ends.
//   wire_peer PORT DEAD_AFTER_MS
#include "transport/caf/testing.hpp"

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace troupe::net;
  if (argc != 3)
    return 2;
  test::program_config cfg{std::atoll(argv[2])};
  caf::actor_system sys{cfg};
  const auto who = sys.spawn(test::server, 0);
  wire::of(sys).publish("server", who);
  const auto at =
      wire::of(sys).listen({"127.0.0.1", static_cast<std::uint16_t>(std::atoi(argv[1]))});
  if (!at) {
    std::cout << "failed " << sys.render(at.error()) << std::endl;
    caf::anon_send_exit(who, caf::exit_reason::kill);
    return 1;
  }
  std::cout << "port " << at->port << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
  }
  caf::anon_send_exit(who, caf::exit_reason::kill);
}
