// The part of a connection that comes before the first message.
#include "transport/byte_io.hpp"
#include "transport/connection.hpp"
#include "troupe/base/check.hpp"

#include <fmt/core.h>

namespace troupe::net {

namespace {

constexpr std::string_view listener_label = "troupe listener 1";
constexpr std::string_view dialler_label = "troupe dialler 1";

} // namespace

refusal connection::secret_misfit() const {
  return {refusal_kind::secret,
          fmt::format("nodes '{}' and '{}' have different secrets: give both the same secret_file",
                      mine_.name, theirs_.name),
          mine_.id, mine_.name};
}

void connection::refuse(refusal why, connection_effects& out) {
  out.asks = false;
  out.send.push_back(channel_.control(opcode::refuse, encode(why)));
  auto shown = to_error(why);
  end({.why = std::move(shown), .parting = parting::heard, .refused = std::move(why)}, out);
}

void connection::on_hello(const incoming_frame& frame, connection_effects& out) {
  byte_reader start{frame.payload.view()};
  channel_.agree(start.number<std::uint64_t>(), 0);
  if (frame.header.version != protocol_version)
    return refuse(version_misfit(mine_, frame.header.version), out);
  auto body = decode_hello(frame.payload.view());
  if (!body)
    return refuse({refusal_kind::malformed, body.error().note, mine_.id, mine_.name}, out);
  theirs_ = std::move(*body);
  channel_.agree(theirs_.token, theirs_.window_bytes);
  if (auto why = misfit(mine_, theirs_))
    return refuse(std::move(*why), out);
  dialler_hello_.assign(frame.payload.view().begin(), frame.payload.view().end());
  out.asks = true;
}

void connection::on_hello_ack(const incoming_frame& frame, connection_effects& out) {
  byte_reader r{frame.payload.view()};
  const auto hello_bytes = r.bytes();
  const auto given = r.raw(sizeof(proof));
  auto body = decode_hello(hello_bytes);
  if (!r.complete() || !body)
    return break_off({errc::corrupt_data, "a malformed answer to our hello"}, out);
  theirs_ = std::move(*body);
  channel_.agree(theirs_.token, theirs_.window_bytes);
  listener_hello_.assign(hello_bytes.begin(), hello_bytes.end());
  if (auto why = misfit(mine_, theirs_))
    return refuse(std::move(*why), out);
  const auto right =
      prove(settings_.options.self.secret, listener_label, dialler_hello_, listener_hello_);
  if (!same_proof(right, given))
    return refuse(secret_misfit(), out);
  out.asks = true;
}

void connection::on_confirm(const incoming_frame& frame, connection_effects& out) {
  const auto right =
      prove(settings_.options.self.secret, dialler_label, dialler_hello_, listener_hello_);
  if (!same_proof(right, frame.payload.view()))
    return refuse(secret_misfit(), out);
  out.asks = true;
}

void connection::approve(time_point now, connection_effects& out) {
  TROUPE_CHECK(out.asks, "nothing was asked");
  out.asks = false;
  const auto& secret = settings_.options.self.secret;
  if (awaits_ == step::hello) {
    listener_hello_ = encode(mine_);
    const auto answer = prove(secret, listener_label, dialler_hello_, listener_hello_);
    std::vector<std::byte> body;
    byte_writer w{body};
    w.bytes(listener_hello_);
    w.raw(answer);
    awaits_ = step::confirm;
    out.send.push_back(channel_.control(opcode::hello_ack, std::move(body)));
  } else if (awaits_ == step::ack) {
    const auto answer = prove(secret, dialler_label, dialler_hello_, listener_hello_);
    awaits_ = step::welcome;
    state_ = connection_state::hello;
    committed_ = true;
    out.send.push_back(channel_.control(opcode::confirm, {answer.begin(), answer.end()}));
  } else {
    out.send.push_back(channel_.control(opcode::welcome, {}));
    become_ready(now, out);
  }
}

void connection::on_refuse(const incoming_frame& frame, connection_effects& out) {
  auto why = decode_refusal(frame.payload.view());
  if (!why)
    return break_off(why.error(), out);
  auto shown = to_error(*why);
  end({.why = std::move(shown), .refused = std::move(*why)}, out);
}

} // namespace troupe::net
