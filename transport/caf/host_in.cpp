// The part of the host that receives. Everything runs on the progress thread.
#include "transport/caf/host.hpp"
#include "transport/caf/watch.hpp"
#include "troupe/base/log.hpp"
#include "troupe/transport/caf.hpp"

#include <caf/actor_proxy.hpp>

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace troupe::net::seam {

void host::message(const node_id& from, std::span<const std::byte> header, shared_bytes payload) {
  const auto in = open(header, payload);
  if (!in) {
    log_error("wire: {}; the peer is closed", in.error().note);
    net_->close(from);
    return;
  }
  if (in->outside.what == verb::intro)
    return on_intro(from, *in);
  const auto who = peer_at(from);
  if (who == nullptr) {
    if (in->outside.what == verb::about)
      return on_about(*in);
    log_error("wire: a message before the introduction; the peer is closed");
    net_->close(from);
    return;
  }
  switch (in->outside.what) {
  case verb::about:
    return on_about(*in);
  case verb::message:
    on_message(*who, *in);
    break;
  case verb::monitor:
    return on_monitor(who, *in);
  case verb::down:
    on_down(who, *in);
    break;
  case verb::link:
  case verb::unlink:
    on_link(*who, *in);
    break;
  case verb::lookup:
    return on_lookup(*who, *in);
  case verb::found:
    return on_found(*who, *in);
  case verb::bounce:
    on_bounce(*who, *in);
    break;
  case verb::intro:
    return;
  }
  runner_.run();
}

void host::on_intro(const node_id& from, const opened& in) {
  caf::node_id node;
  address where;
  if (read(runner_, in.stream, node, where.host, where.port) || !node || node == system_.node()) {
    log_error("wire: a node does not say who it is; closed");
    net_->close(from);
    return;
  }
  const auto who = peer_of(node);
  std::vector<node_id> others;
  std::vector<dialling> waiting;
  std::string name;
  {
    const std::lock_guard guard{mutex_};
    if (const auto facts = facts_.find(from); facts != facts_.end())
      name = facts->second.name;
    if (where.port != 0)
      places_.insert_or_assign(node, where);
    for (const auto& [id, other] : connected_)
      others.push_back(id);
    connected_.insert_or_assign(from, who);
    if (auto found = awaiting_intro_.extract(from); !found.empty())
      waiting = std::move(found.mapped());
  }
  // Others hear of the node before any handle of it can reach them through us.
  const auto news = pack({.what = verb::about}, {place(node, where), {}});
  for (const auto& other : others)
    static_cast<void>(net_->send(other, news.header, news.payload, pressure::insist));
  who->listens_at(where);
  if (!who->up(*net_, from))
    net_->close(from);
  // Whoever dialled hears of it after everybody else.
  tell({.what = wire_event::kind::up,
        .name = std::move(name),
        .where = where,
        .node = node,
        .why = {errc::none, ""}});
  for (const auto& what : waiting)
    settle(what, node);
}

void host::on_about(const opened& in) {
  constexpr std::size_t places_max = 65536;
  caf::node_id node;
  address where;
  if (read(runner_, in.stream, node, where.host, where.port) || !node || where.port == 0 ||
      node == system_.node())
    return;
  const std::lock_guard guard{mutex_};
  if (places_.size() >= places_max)
    return;
  places_.insert_or_assign(node, where);
  if (const auto known = peers_.find(node); known != peers_.end())
    known->second->listens_at(where);
}

void host::on_message(peer& from, const opened& in) {
  const auto& outside = in.outside;
  const caf::message_id id{outside.id};
  if (id.is_response())
    from.answered(outside.dst, id);
  auto stream = in.stream;
  auto node = from.node();
  caf::strong_actor_ptr src;
  if (outside.foreign_source) {
    caf::binary_deserializer source{&runner_, reinterpret_cast<const char*>(stream.data()),
                                    stream.size()};
    if (source(node))
      return log_error("wire: a message without its source is dropped");
    stream = stream.last(source.remaining());
  }
  if (outside.src != 0)
    src = node == system_.node() ? system_.registry().get(outside.src)
                                 : proxies_.get_or_put(node, outside.src);
  deliver(from, {outside, stream, in.buffers}, src);
}

void host::deliver(peer& from, const opened& in, const caf::strong_actor_ptr& src) {
  const caf::message_id id{in.outside.id};
  const auto refuse = [&](caf::error why) {
    std::vector<char> stream;
    if (id.is_request() && in.outside.src != 0 && !write(system_, stream, why))
      send_small(
          from,
          {.what = verb::bounce, .id = id.response_id().integer_value(), .dst = in.outside.src},
          std::move(stream));
  };
  const auto dst = system_.registry().get(in.outside.dst);
  if (dst == nullptr)
    return refuse(caf::make_error(caf::sec::request_receiver_down));
  const buffers_in hand_out{in.buffers};
  caf::binary_deserializer source{&runner_, reinterpret_cast<const char*>(in.stream.data()),
                                  in.stream.size()};
  std::vector<caf::strong_actor_ptr> stages;
  caf::message what;
  auto e = source(stages);
  if (!e)
    e = settings_.types.load(source, what);
  if (e) {
    log_warn("wire: a message cannot be read: {}", system_.render(e));
    return refuse(std::move(e));
  }
  if (settle_exit(from, what, dst))
    return;
  dst->enqueue(caf::make_mailbox_element(src, id, std::move(stages), std::move(what)), &runner_);
}

/// An actor that ends tells its links and its monitors, and both may reach us: the first ends the
/// link, so that the second finds nothing to do.
/// @return true when the exit was told already
bool host::settle_exit(peer& from, const caf::message& what, const caf::strong_actor_ptr& dst) {
  if (!what.match_elements<caf::exit_msg>())
    return false;
  const auto source = caf::actor_cast<caf::strong_actor_ptr>(what.get_as<caf::exit_msg>(0).source);
  if (source == nullptr || source->node() != from.node())
    return false;
  {
    const std::lock_guard guard{mutex_};
    const std::pair key{from.node(), source->id()};
    if (std::find(ended_.begin(), ended_.end(), key) != ended_.end())
      return true;
  }
  source->get()->remove_link(dst->get());
  return false;
}

void host::on_monitor(const peer_ref& from, const opened& in) {
  const auto actor = in.outside.dst;
  const auto watched = system_.registry().get(actor);
  if (watched == nullptr)
    return tell_down(*from, actor, caf::make_error(caf::exit_reason::unknown));
  if (from->watches(actor))
    watched->get()->attach(caf::attachable_ptr{new watch{*this, from, actor}});
}

void host::on_down(const peer_ref& from, const opened& in) {
  caf::error reason;
  if (in.stream.empty() || read(runner_, in.stream, reason))
    reason = caf::make_error(caf::exit_reason::unknown);
  forget(from, in.outside.src, std::move(reason));
}

void host::on_link(peer& from, const opened& in) {
  const auto dst = system_.registry().get(in.outside.dst);
  const auto far = proxies_.get_or_put(from.node(), in.outside.src);
  if (dst == nullptr || far == nullptr)
    return;
  if (in.outside.what == verb::link)
    far->get()->add_link(dst->get());
  else
    far->get()->remove_link(dst->get());
}

void host::on_lookup(peer& from, const opened& in) {
  std::string name;
  if (read(runner_, in.stream, name))
    return log_error("wire: a lookup without a name is dropped");
  published found;
  {
    const std::lock_guard guard{mutex_};
    if (const auto at = published_.find(name); at != published_.end())
      found = at->second;
  }
  if (found.who != nullptr)
    system_.registry().put(found.who->id(), found.who);
  std::vector<char> stream;
  if (auto e = write(system_, stream, found.who, found.type))
    return log_error("wire: an actor cannot be told: {}", system_.render(e));
  send_small(from, {.what = verb::found, .id = in.outside.id}, std::move(stream));
}

void host::on_found(peer&, const opened& in) {
  published found;
  const auto broken = read(runner_, in.stream, found.who, found.type);
  const auto done = take_question(in.outside.id);
  if (!done)
    return;
  if (broken)
    done(fail(errc::corrupt_data, system_.render(broken)));
  else if (found.who == nullptr)
    done(fail(errc::not_found, "no actor is published under this name"));
  else
    done(std::move(found));
}

void host::on_bounce(peer& from, const opened& in) {
  caf::error why;
  if (in.stream.empty() || read(runner_, in.stream, why) || !why)
    why = caf::make_error(caf::sec::request_receiver_down);
  from.answered(in.outside.dst, caf::message_id{in.outside.id});
  if (const auto dst = system_.registry().get(in.outside.dst))
    dst->enqueue(nullptr, caf::message_id{in.outside.id}, caf::make_message(std::move(why)),
                 &runner_);
}

} // namespace troupe::net::seam
