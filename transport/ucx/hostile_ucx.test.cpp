// Strangers at the door of a node: raw bytes on its port, and frames of UCX that are none of ours.
#include "transport/conformance.hpp"
#include "transport/ucx/node.hpp"
#include "troupe/base/prng.hpp"

#include <catch2/catch.hpp>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

using namespace troupe;
using namespace troupe::net;
using namespace troupe::net::test;
using namespace std::chrono_literals;

namespace {

struct node_with_notes {
  explicit node_with_notes(std::string_view name) {
    auto made = ucx::make({.node = options_of(name), .lanes = {"tcp", "lo"}}, heard);
    REQUIRE(made);
    net = std::move(*made);
  }
  ~node_with_notes() { net->stop(); }
  bool wait(const std::function<bool(const recorder::notes&)>& done) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!heard.with(done) && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(1ms);
    return heard.with(done);
  }

  recorder heard;
  std::unique_ptr<transport> net;
};

/// A friend still gets in and is served.
void check_alive(node_with_notes& host, const address& where) {
  node_with_notes guest{"guest"};
  static_cast<void>(guest.net->dial(where));
  REQUIRE(guest.wait([](const recorder::notes& n) { return n.up.size() == 1; }));
  REQUIRE(guest.net->send(host.net->self().id, noise(16, 1)));
  REQUIRE(host.wait([](const recorder::notes& n) { return n.messages.size() == 1; }));
  CHECK(host.heard.copy().up.size() == 1);
}

sockaddr_in socket_address_of(const address& where) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(where.port);
  ::inet_pton(AF_INET, where.host.c_str(), &out.sin_addr);
  return out;
}

/// The id of the node's frames among UCX's active messages.
constexpr unsigned frames_id = 7;

/// A stranger that speaks UCX.
struct stranger {
  explicit stranger(const address& where) {
    auto made = ucx::context::make({"tcp", "lo"});
    REQUIRE(made);
    context = std::move(*made);
    auto works = ucx::worker::make(context, 1024);
    REQUIRE(works);
    worker = std::move(*works);
    // UCX 1.13 crashes on messages that no handler wants: drop the answers.
    ucp_am_handler_param_t takes{};
    takes.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB;
    takes.id = frames_id;
    takes.cb = [](void*, const void*, std::size_t, void*, std::size_t, const ucp_am_recv_param_t*) {
      return UCS_OK;
    };
    REQUIRE(ucp_worker_set_am_recv_handler(worker.get(), &takes) == UCS_OK);
    const auto to = socket_address_of(where);
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR |
                        UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.cb = [](void* arg, ucp_ep_h, ucs_status_t) {
      *static_cast<bool*>(arg) = true;
    };
    params.err_handler.arg = &thrown_out;
    params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&to);
    params.sockaddr.addrlen = sizeof to;
    REQUIRE(ucp_ep_create(worker.get(), &params, &handle) == UCS_OK);
  }
  ~stranger() {
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    finish(ucp_ep_close_nbx(handle, &params));
  }
  void send(std::span<const std::byte> head, std::span<const std::byte> body, bool reply,
            unsigned id = frames_id) {
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = reply ? UCP_AM_SEND_FLAG_REPLY : 0;
    finish(
        ucp_am_send_nbx(handle, id, head.data(), head.size(), body.data(), body.size(), &params));
  }
  void finish(ucs_status_ptr_t request) {
    if (!UCS_PTR_IS_PTR(request))
      return;
    const auto end = std::chrono::steady_clock::now() + 5s;
    while (ucp_request_check_status(request) == UCS_INPROGRESS &&
           std::chrono::steady_clock::now() < end)
      ucp_worker_progress(worker.get());
    ucp_request_free(request);
  }

  ucx::context context;
  ucx::worker worker;
  ucp_ep_h handle = nullptr;
  bool thrown_out = false;
};

} // namespace

TEST_CASE("raw bytes on the port harm nobody", "[net][ucx]") {
  node_with_notes host{"host"};
  const auto where = host.net->listen({"127.0.0.1", 0});
  REQUIRE(where);
  splitmix64 random{11};
  for (int i = 0; i < 20; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto to = socket_address_of(*where);
    REQUIRE(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
    // Some say nothing at all.
    const auto bytes = noise(random.below(4) * 100, i);
    static_cast<void>(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    std::this_thread::sleep_for(5ms);
    ::close(fd);
  }
  check_alive(host, *where);
}

TEST_CASE("frames of a stranger throw it out and harm nobody", "[net][ucx]") {
  node_with_notes host{"host"};
  const auto where = host.net->listen({"127.0.0.1", 0});
  REQUIRE(where);
  splitmix64 random{12};
  for (int i = 0; i < 12; ++i) {
    stranger guest{*where};
    for (int frame = 0; frame < 8 && !guest.thrown_out; ++frame) {
      auto head = noise(random.below(200), random());
      const auto body = noise(random.below(3) == 0 ? 100000 : random.below(300), random());
      if (i % 2 == 0) {
        frame_header header;
        header.op = opcode{static_cast<std::uint8_t>(1 + random.below(11))};
        header.payload_bytes = static_cast<std::uint32_t>(body.size());
        head.assign(frame_header_bytes, std::byte{0});
        encode_header(header, head);
      }
      guest.send(head, body, true);
    }
  }
  const auto& real = dynamic_cast<const ucx::node&>(*host.net);
  CHECK(real.malformed() > 0);
  check_alive(host, *where);
}

TEST_CASE("messages of an id that no handler has are dropped", "[net][ucx]") {
  node_with_notes host{"host"};
  const auto where = host.net->listen({"127.0.0.1", 0});
  REQUIRE(where);
  for (const unsigned id : {0U, 1U, 6U, 8U, 31U, 100U, 65535U}) {
    stranger guest{*where};
    for (const std::size_t size : {10U, 100000U})
      guest.send(noise(20, id), noise(size, id), size == 10, id);
  }
  check_alive(host, *where);
}
