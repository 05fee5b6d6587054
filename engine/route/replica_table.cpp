#include "engine/route/replica_table.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

namespace troupe::engine {

namespace {

/// One replica as the router sees it.
struct replica_row {
  replica_facts facts;
  std::uint32_t model = 0;
  /// Its place among the ranges of the cache view.
  std::uint32_t member = 0;
  bool draining = false;
  replica_load reported;
  /// Sent and ended since the report, which does not know of it.
  std::int64_t requests_since = 0;
  std::uint64_t tokens_since = 0;

  [[nodiscard]] std::int64_t requests() const {
    return std::max<std::int64_t>(0, std::int64_t{reported.running} + reported.waiting +
                                         requests_since);
  }
  /// Tokens that its steps have to read or to compute for others.
  [[nodiscard]] std::uint64_t busy_tokens() const {
    return std::uint64_t{reported.used_blocks} * facts.block_size + reported.waiting_tokens +
           tokens_since;
  }
};

struct candidate {
  const replica_row* row = nullptr;
  /// Leading blocks of the request that are cached there; none unless the policy asked.
  depth_range cached;
  /// Tokens of the request and of the others there.
  std::uint64_t tokens = 0;
  std::int64_t requests = 0;
  std::uint32_t block_size = 1;
  /// The blocks of the request, in the size that this replica has.
  std::span<const block_hash> chain;
};

/// At least one replica, in the order of ids.
using candidates = std::vector<candidate>;
using choice = const candidate& (*)(candidates& from, std::optional<replica_id> last,
                                    const cache_view* cache);

const candidate& next_in_turn(candidates& from, std::optional<replica_id> last, const cache_view*) {
  const auto found = std::ranges::find_if(
      from, [&](const candidate& c) { return !last || c.row->facts.id > *last; });
  return found != from.end() ? *found : from.front();
}

/// The candidate of the least cost; among equals the next in turn.
template <class Cost>
candidate& cheapest(candidates& from, std::optional<replica_id> last, Cost cost) {
  candidate* best = nullptr;
  auto best_cost = cost(from.front());
  bool best_is_behind = false;
  for (auto& one : from) {
    const auto its = cost(one);
    const bool behind = !last || one.row->facts.id > *last;
    if (best == nullptr || its < best_cost || (its == best_cost && behind && !best_is_behind)) {
      best = &one;
      best_cost = its;
      best_is_behind = behind;
    }
  }
  return *best;
}

/// The fewest requests; among equals the fewest prompt tokens on their way, then the most free
/// blocks, then the next in turn.
const candidate& least_loaded(candidates& from, std::optional<replica_id> last, const cache_view*) {
  return cheapest(from, last, [](const candidate& c) {
    return std::tuple{c.requests, c.row->tokens_since, ~c.row->reported.free_blocks};
  });
}

/// The fewest tokens to compute and to read: those of the request that are not cached, those in the
/// KV blocks of the requests that run there, and the prompts that wait; then the fewest requests.
/// What is cached is known to a sixteenth at first, and found out exactly only of who would win if
/// it had the most that it can have: when the winner's depth is exact, nobody else can win.
const candidate& prefix(candidates& from, std::optional<replica_id> last, const cache_view* cache) {
  for (;;) {
    auto& best = cheapest(from, last, [](const candidate& c) {
      return std::pair{c.tokens - std::uint64_t{c.cached.most} * c.block_size, c.requests};
    });
    if (best.cached.least == best.cached.most)
      return best;
    const auto depth = cache->settle(best.chain, best.row->member, best.cached);
    best.cached = {.least = depth, .most = depth};
  }
}

struct policy_row {
  routing_policy policy;
  std::string_view name;
  choice choose;
  /// Whether the choice looks at what is cached.
  bool wants_cache;
};

/// A new policy is one row and one function. In the order of the enumeration.
constexpr std::array policies{
    policy_row{routing_policy::round_robin, "round_robin", next_in_turn, false},
    policy_row{routing_policy::least_loaded, "least_loaded", least_loaded, false},
    policy_row{routing_policy::prefix, "prefix", prefix, true},
};

const policy_row& row_of(routing_policy policy) {
  return policies.at(static_cast<std::size_t>(policy));
}

} // namespace

std::string_view to_string(routing_policy policy) noexcept { return row_of(policy).name; }

struct replica_table::impl {
  explicit impl(const options& how) : policy{row_of(how.policy)} {
    if (policy.wants_cache)
      cache.emplace(how.cache);
  }

  [[nodiscard]] replica_row* find(replica_id id) {
    const auto found = std::ranges::lower_bound(rows, id, {}, id_of);
    return found == rows.end() || found->facts.id != id ? nullptr : &*found;
  }

  [[nodiscard]] static replica_id id_of(const replica_row& row) { return row.facts.id; }

  void gather(const placement& what, std::uint32_t model);
  void look_up(prompt_hashes& hashes, time_point now);

  const policy_row& policy;
  /// In the order of ids.
  std::vector<replica_row> rows;
  std::map<std::string, std::uint32_t, std::less<>> models;
  /// The replica chosen last, of each model.
  std::vector<std::optional<replica_id>> last;
  std::optional<cache_view> cache;
  /// Kept from choice to choice, so that one allocates nothing.
  candidates from;
  std::vector<depth_range> ranges;
};

/// The replicas that can take the request; those of equal numerics alone if there are any.
void replica_table::impl::gather(const placement& what, std::uint32_t model) {
  from.clear();
  for (const auto& row : rows) {
    if (row.model != model || row.draining ||
        std::ranges::find(what.except, row.facts.id) != what.except.end())
      continue;
    from.push_back({.row = &row,
                    .cached = {},
                    .tokens = what.hashes.tokens() + row.busy_tokens(),
                    .requests = row.requests(),
                    .block_size = row.facts.block_size,
                    .chain = {}});
  }
  const auto other = [&](const candidate& c) { return c.row->facts.numerics != what.numerics; };
  if (what.numerics && !std::ranges::all_of(from, other))
    std::erase_if(from, other);
}

/// How much each candidate has cached, to a sixteenth of the prompt: one look-up for all of a block
/// size, which is one as a rule.
void replica_table::impl::look_up(prompt_hashes& hashes, time_point now) {
  std::span<const block_hash> chain;
  std::uint32_t size = 0;
  for (auto& one : from) {
    if (one.block_size != size) {
      size = one.block_size;
      chain = hashes.of(size);
      ranges.assign(cache->members(), {});
      cache->bound(chain, ranges, now);
    }
    one.cached = ranges[one.row->member];
    one.chain = chain;
  }
}

replica_table::replica_table(options how) : impl_{std::make_unique<impl>(how)} {}

replica_table::~replica_table() = default;

void replica_table::add(replica_facts facts, time_point now) {
  remove(facts.id);
  const auto [model, fresh] =
      impl_->models.try_emplace(facts.model, static_cast<std::uint32_t>(impl_->models.size()));
  if (fresh)
    impl_->last.emplace_back();
  replica_row row{.facts = std::move(facts), .model = model->second, .reported = {}};
  row.facts.block_size = std::max<std::uint32_t>(1, row.facts.block_size);
  if (impl_->cache)
    row.member = impl_->cache->add(row.facts.id, row.facts.incarnation, now);
  const auto at = std::ranges::lower_bound(impl_->rows, row.facts.id, {}, impl::id_of);
  impl_->rows.insert(at, std::move(row));
}

void replica_table::remove(replica_id replica) {
  std::erase_if(impl_->rows, [&](const replica_row& row) { return row.facts.id == replica; });
  if (impl_->cache)
    impl_->cache->remove(replica);
}

void replica_table::set_draining(replica_id replica) {
  if (auto* row = impl_->find(replica); row != nullptr)
    row->draining = true;
}

void replica_table::report(replica_id replica, const replica_load& load) {
  auto* row = impl_->find(replica);
  if (row == nullptr)
    return;
  row->reported = load;
  row->requests_since = 0;
  row->tokens_since = 0;
}

void replica_table::sent(const placement& what, const chosen_replica& where, time_point now) {
  auto* row = impl_->find(where.id);
  if (row == nullptr)
    return;
  ++row->requests_since;
  row->tokens_since += what.hashes.tokens() - where.cached_tokens;
  if (!impl_->cache)
    return;
  const auto hashes = what.hashes.of(row->facts.block_size);
  const auto known = where.cached_tokens / row->facts.block_size;
  impl_->cache->expect(where.id, hashes.subspan(std::min(known, hashes.size())), now);
}

void replica_table::ended(replica_id replica) {
  if (auto* row = impl_->find(replica); row != nullptr)
    --row->requests_since;
}

std::optional<chosen_replica> replica_table::choose(const placement& what, time_point now) {
  const auto model = impl_->models.find(what.model);
  if (model == impl_->models.end())
    return std::nullopt;
  impl_->gather(what, model->second);
  if (impl_->from.empty())
    return std::nullopt;
  if (impl_->cache)
    impl_->look_up(what.hashes, now);
  auto& last = impl_->last[model->second];
  const auto& best =
      impl_->policy.choose(impl_->from, last, impl_->cache ? &*impl_->cache : nullptr);
  last = best.row->facts.id;
  return chosen_replica{.id = best.row->facts.id,
                        .cached_tokens = std::uint64_t{best.cached.least} * best.block_size};
}

const replica_facts* replica_table::facts(replica_id replica) const {
  const auto* row = impl_->find(replica);
  return row == nullptr ? nullptr : &row->facts;
}

bool replica_table::knows(std::string_view model) const { return impl_->models.contains(model); }

cache_view* replica_table::cache() noexcept { return impl_->cache ? &*impl_->cache : nullptr; }

} // namespace troupe::engine
