#include "troupe/transport/caf.hpp"

#include "transport/caf/host.hpp"
#include "transport/caf/settings.hpp"
#include "troupe/base/check.hpp"
#include "troupe/base/log.hpp"

#include <utility>

// CAF 0.17 declares this class a friend of actor_system and defines it nowhere. Without caf::io
// nobody gives a system its node id, and only a friend can.
namespace caf::net {
class middleman {
public:
  static void assign(actor_system& sys, node_id id) { sys.node_.swap(id); }
};
} // namespace caf::net

namespace troupe::net {

caf::actor_system::module* wire::make(caf::actor_system& sys, caf::detail::type_list<>) {
  return new wire(sys); // CAF takes the ownership of a raw pointer.
}

wire& wire::of(caf::actor_system& sys) {
  TROUPE_CHECK(sys.has_network_manager(), "the actor system has not loaded troupe::net::wire");
  // The slot of the module yields what subtype_ptr() returned, under a type that has no definition.
  return *reinterpret_cast<wire*>(&sys.network_manager());
}

wire::wire(caf::actor_system& sys) : system_{sys} {}
wire::~wire() = default;

void wire::init(caf::actor_system_config& cfg) {
  cfg.add_message_type<shared_bytes>("troupe.shared_bytes");
  if (!system_.node())
    caf::net::middleman::assign(system_, caf::node_id::default_data::local(cfg));
  auto read = seam::read_settings(cfg);
  if (!read) {
    failure_ = read.error();
    return;
  }
  host_ = std::make_unique<seam::host>(system_, std::move(*read));
}

void wire::start() {
  if (host_ == nullptr)
    return log_error("wire: {}", to_string(failure_));
  if (auto started = host_->start(); !started) {
    failure_ = started.error();
    log_error("wire: {}", to_string(failure_));
    host_.reset();
  }
}

void wire::stop() {
  if (host_ != nullptr)
    host_->stop();
}

caf::expected<address> wire::listen(const address& where) {
  if (host_ == nullptr)
    return to_caf_error(failure_);
  auto at = host_->listen(where);
  if (!at)
    return to_caf_error(at.error());
  return *at;
}

caf::expected<caf::node_id> wire::connect(const address& where, std::chrono::milliseconds limit) {
  if (host_ == nullptr)
    return to_caf_error(failure_);
  auto node = host_->connect(where, limit);
  if (!node)
    return to_caf_error(node.error());
  return *node;
}

void wire::connect(const address& where, std::function<void(const result<caf::node_id>&)> done) {
  if (host_ == nullptr)
    return done(fail(failure_));
  host_->connect(where, std::move(done));
}

void wire::observe(std::function<void(const wire_event&)> user) {
  if (host_ != nullptr)
    host_->observe(std::move(user));
}

void wire::agree_on(caf::actor_system_config& cfg, const std::vector<config_part>& parts) {
  caf::config_value::dictionary all;
  for (const auto& part : parts)
    all.emplace(part.name, caf::config_value{static_cast<std::int64_t>(part.hash)});
  caf::put(cfg.content, seam::agree_on_key, std::move(all));
}

void wire::disconnect(const caf::node_id& peer) {
  if (host_ != nullptr)
    host_->disconnect(peer);
}

void wire::forgive(const node_id& peer) {
  if (host_ != nullptr)
    host_->forgive(peer);
}

void wire::publish_impl(std::string name, caf::strong_actor_ptr what, std::set<std::string> type) {
  if (host_ != nullptr)
    host_->publish(name, {std::move(what), std::move(type)});
}

void wire::unpublish(const std::string& name) {
  if (host_ != nullptr)
    host_->unpublish(name);
}

caf::expected<caf::strong_actor_ptr> wire::lookup_impl(const caf::node_id& at,
                                                       const std::string& name,
                                                       const std::set<std::string>& type,
                                                       std::chrono::milliseconds limit) {
  if (host_ == nullptr)
    return to_caf_error(failure_);
  auto found = host_->lookup(at, name, limit);
  if (!found)
    return to_caf_error(found.error());
  if (!system_.assignable(found->type, type))
    return to_caf_error({errc::conflict, "the actor '" + name + "' takes other messages"});
  return std::move(found->who);
}

void wire::lookup_impl(const caf::node_id& at, const std::string& name, std::set<std::string> type,
                       std::function<void(const result<caf::strong_actor_ptr>&)> done) {
  if (host_ == nullptr)
    return done(fail(failure_));
  host_->lookup(at, name,
                [this, name, type = std::move(type),
                 done = std::move(done)](const result<seam::published>& found) {
                  if (!found)
                    return done(fail(found.error()));
                  if (!system_.assignable(found->type, type))
                    return done(
                        fail(errc::conflict, "the actor '" + name + "' takes other messages"));
                  done(found->who);
                });
}

void wire::run_inline(const caf::actor_addr& who) {
  if (host_ != nullptr)
    host_->run_inline(who.id());
}

std::vector<peer_stats> wire::stats() const {
  return host_ == nullptr ? std::vector<peer_stats>{} : host_->stats();
}

std::uint64_t wire::messages_dropped() const { return host_ == nullptr ? 0 : host_->dropped(); }

std::size_t wire::proxies(const caf::node_id& peer) const {
  return host_ == nullptr ? 0 : host_->proxies(peer);
}

} // namespace troupe::net
