#include "engine/route/replica_table.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace troupe::engine {

namespace {

/// One replica as the router sees it.
struct replica_row {
  replica_id id{};
  std::string model;
  replica_load reported;
  /// Sent and ended since the report, which does not know of it.
  std::int64_t requests_since = 0;
  std::uint64_t tokens_since = 0;

  [[nodiscard]] std::int64_t requests() const {
    return std::max<std::int64_t>(0, std::int64_t{reported.running} + reported.waiting +
                                         requests_since);
  }
};

/// At least one replica, in the order of ids.
using candidates = std::vector<const replica_row*>;
using choice = const replica_row* (*)(const candidates& from, std::optional<replica_id> last);

const replica_row* next_in_turn(const candidates& from, std::optional<replica_id> last) {
  const auto found =
      std::ranges::find_if(from, [&](const replica_row* row) { return !last || row->id > *last; });
  return found != from.end() ? *found : from.front();
}

/// The fewest requests; among equals the fewest prompt tokens on their way, then the most free
/// blocks, then the next in turn.
const replica_row* least_loaded(const candidates& from, std::optional<replica_id> last) {
  const auto load = [](const replica_row* row) {
    return std::tuple{row->requests(), row->tokens_since, ~row->reported.free_blocks};
  };
  const auto least = load(*std::ranges::min_element(from, {}, load));
  candidates equal;
  std::ranges::copy_if(from, std::back_inserter(equal),
                       [&](const replica_row* row) { return load(row) == least; });
  return next_in_turn(equal, last);
}

struct policy_row {
  routing_policy policy;
  std::string_view name;
  choice choose;
};

/// A new policy is one row and one function. In the order of the enumeration.
constexpr std::array policies{
    policy_row{routing_policy::round_robin, "round_robin", next_in_turn},
    policy_row{routing_policy::least_loaded, "least_loaded", least_loaded},
};

const policy_row& row_of(routing_policy policy) {
  return policies.at(static_cast<std::size_t>(policy));
}

} // namespace

std::string_view to_string(routing_policy policy) noexcept { return row_of(policy).name; }

struct replica_table::impl {
  [[nodiscard]] replica_row* find(replica_id id) {
    const auto found = rows.find(id);
    return found == rows.end() ? nullptr : &found->second;
  }

  routing_policy policy{};
  std::map<replica_id, replica_row> rows;
  std::set<std::string, std::less<>> models;
  /// The replica chosen last, of each model.
  std::unordered_map<std::string, replica_id> last;
};

replica_table::replica_table(routing_policy policy) : impl_{std::make_unique<impl>()} {
  impl_->policy = policy;
}

replica_table::~replica_table() = default;

void replica_table::add(replica_id replica, std::string model) {
  impl_->models.insert(model);
  impl_->rows[replica] = {.id = replica, .model = std::move(model), .reported = {}};
}

void replica_table::remove(replica_id replica) { impl_->rows.erase(replica); }

void replica_table::report(replica_id replica, const replica_load& load) {
  auto* row = impl_->find(replica);
  if (row == nullptr)
    return;
  row->reported = load;
  row->requests_since = 0;
  row->tokens_since = 0;
}

void replica_table::sent(replica_id replica, std::uint32_t prompt_tokens) {
  auto* row = impl_->find(replica);
  if (row == nullptr)
    return;
  ++row->requests_since;
  row->tokens_since += prompt_tokens;
}

void replica_table::ended(replica_id replica) {
  if (auto* row = impl_->find(replica); row != nullptr)
    --row->requests_since;
}

std::optional<replica_id> replica_table::choose(std::string_view model) {
  candidates from;
  for (const auto& [id, row] : impl_->rows) {
    if (row.model == model)
      from.push_back(&row);
  }
  if (from.empty())
    return std::nullopt;
  const auto last = impl_->last.find(std::string{model});
  const auto* chosen =
      row_of(impl_->policy)
          .choose(from, last == impl_->last.end() ? std::nullopt : std::optional{last->second});
  impl_->last[chosen->model] = chosen->id;
  return chosen->id;
}

bool replica_table::knows(std::string_view model) const {
  return impl_->models.find(model) != impl_->models.end();
}

} // namespace troupe::engine
