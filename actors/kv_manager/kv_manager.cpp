#include "actors/kv_manager/kv_manager.hpp"

#include <algorithm>

namespace troupe::actors {

namespace {

using self_ptr = kv_manager_actor::stateful_pointer<kv_manager_state>;

constexpr std::chrono::milliseconds flush_interval{100};
/// A router that takes longer gets a snapshot when it asks again.
constexpr std::chrono::seconds report_limit{10};

void flush(self_ptr self);

void send_report(self_ptr self, hub_id hub, engine::kv_index_report report) {
  const auto arrived = [self, hub] { state(self).feed->arrived(hub); };
  ask(self, state(self).followers.at(hub), report_limit, std::move(report))
      .then(arrived, [arrived](const caf::error&) { arrived(); });
}

void flush(self_ptr self) {
  auto& st = state(self);
  for (auto& [hub, report] : st.feed->take([&] { return st.pool->indexed(); }))
    send_report(self, hub, std::move(report));
}

/// Nothing is kept or counted while nobody follows: the pool drops what is not taken.
void follow_up(self_ptr self) {
  auto& st = state(self);
  if (st.followers.empty())
    return;
  st.feed->add(st.pool->take_events());
  if (st.feed->urgent())
    flush(self);
  if (!std::exchange(st.tick_pending, true))
    tell_later(self, flush_interval, tick_atom::value);
}

void attach(self_ptr self, hub_id hub, const index_sink& router) {
  auto& st = state(self);
  auto& known = st.followers[hub];
  if (!known || !same_proxy(known, router))
    self->monitor(router);
  known = router;
  st.feed->add(st.pool->take_events());
  st.feed->attach(hub);
  flush(self);
}

void lose(self_ptr self, const caf::actor_addr& router) {
  auto& st = state(self);
  std::erase_if(st.followers, [&](const auto& known) {
    const bool gone = same_proxy(known.second, router);
    if (gone)
      st.feed->detach(known.first);
    return gone;
  });
}

} // namespace

kv_manager_actor::behavior_type kv_manager(self_ptr self, kv_manager_options options) {
  state(self).pool.emplace(options.num_blocks, options.block_size);
  state(self).feed.emplace(
      engine::index_feed::options{.replica = options.replica, .incarnation = options.incarnation});
  self->set_down_handler([self](const caf::down_msg& down) { lose(self, down.source); });
  return {
      [self](const engine::kv_admit& admit) {
        auto answer = state(self).pool->admit(admit);
        follow_up(self);
        return answer;
      },
      [self](const engine::kv_want& want) {
        auto answer = state(self).pool->want(want);
        follow_up(self);
        return answer;
      },
      [self](const engine::kv_commit& commit) {
        state(self).pool->commit(commit);
        follow_up(self);
      },
      [self](const engine::kv_release& release) { state(self).pool->release(release); },
      [self](attach_atom, hub_id hub, const index_sink& router) { attach(self, hub, router); },
      [self](tick_atom) {
        state(self).tick_pending = false;
        flush(self);
      },
      [self](status_atom) {
        const auto stats = state(self).pool->stats();
        return kv_report{
            .free_blocks = stats.free, .total_blocks = stats.total, .mailbox = mailbox_depth(self)};
      },
  };
}

} // namespace troupe::actors
