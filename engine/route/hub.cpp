#include "engine/route/hub.hpp"

#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <map>
#include <set>
#include <utility>

namespace troupe::engine {

namespace {

/// Request ids: the hub above these bits, a counter in them. The counter lasts for decades.
constexpr std::uint32_t counter_bits = 40;

struct stream_record {
  /// As it was sent last; `delivered` is every token that reached the sink.
  submission request;
  /// Nothing while the stream is parked; its attempt is one that was never sent then.
  std::optional<replica_id> replica;
};

} // namespace

struct hub::impl {
  using records = std::map<request_id, stream_record>;

  void settle(request_id id, stream_record& record, replica_id replica) {
    by_replica[replica].insert(id);
    record.replica = replica;
  }

  void unsettle(request_id id, stream_record& record) {
    if (!record.replica)
      return;
    const auto found = by_replica.find(*record.replica);
    record.replica.reset();
    found->second.erase(id);
    if (found->second.empty())
      by_replica.erase(found);
  }

  void erase(records::iterator found) {
    unsettle(found->first, found->second);
    streams.erase(found);
    ++counters.ended;
  }

  hub_id id{};
  std::uint32_t max_streams = 0;
  std::uint64_t last = 0;
  records streams;
  std::map<replica_id, std::set<request_id>> by_replica;
  hub_stats counters;
};

hub::hub(hub_id id, std::uint32_t max_streams) : impl_{std::make_unique<impl>()} {
  TROUPE_CHECK(std::uint64_t{value(id)} >> (64 - counter_bits) == 0, "hub {} has more than {} bits",
               value(id), 64 - counter_bits);
  impl_->id = id;
  impl_->max_streams = max_streams;
}

hub::~hub() = default;

result<submission> hub::open(submission request, replica_id replica) {
  if (impl_->streams.size() >= impl_->max_streams)
    return fail(errc::busy, fmt::format("{} streams are open here, which is the limit; try again "
                                        "later",
                                        impl_->streams.size()));
  const auto number = ++impl_->last;
  request.id = request_id{std::uint64_t{value(impl_->id)} << counter_bits | number};
  request.sink = {.hub = impl_->id, .stream = stream_id{number}};
  request.attempt = 1;
  const auto id = request.id;
  const auto [record, fresh] = impl_->streams.emplace(id, stream_record{std::move(request), {}});
  TROUPE_CHECK(fresh, "request {} is open already", value(id));
  impl_->settle(id, record->second, replica);
  ++impl_->counters.opened;
  return record->second.request;
}

std::optional<token_chunk> hub::deliver(const token_chunk& chunk) {
  const auto found = impl_->streams.find(chunk.request);
  auto* request = found == impl_->streams.end() ? nullptr : &found->second.request;
  const bool parked = request != nullptr && !found->second.replica;
  if (request == nullptr || parked || chunk.stream != request->sink.stream ||
      chunk.attempt != request->attempt || chunk.offset != request->delivered.size()) {
    ++impl_->counters.dropped;
    return std::nullopt;
  }
  request->delivered.insert(request->delivered.end(), chunk.ids.begin(), chunk.ids.end());
  if (chunk.finish != finish_reason::none)
    impl_->erase(found);
  auto next = chunk;
  if (chunk.offset > 0)
    next.cached_tokens = 0;
  return next;
}

std::optional<token_chunk> hub::end(request_id id, finish_reason finish, error why) {
  const auto found = impl_->streams.find(id);
  if (found == impl_->streams.end())
    return std::nullopt;
  const auto& request = found->second.request;
  token_chunk last;
  last.request = id;
  last.stream = request.sink.stream;
  last.attempt = request.attempt;
  last.offset = static_cast<std::uint32_t>(request.delivered.size());
  last.finish = finish;
  last.why = why.code;
  last.note = std::move(why.note);
  impl_->erase(found);
  return last;
}

void hub::close(request_id id) {
  if (const auto found = impl_->streams.find(id); found != impl_->streams.end())
    impl_->erase(found);
}

std::optional<submission> hub::resume(request_id id, replica_id replica) {
  const auto found = impl_->streams.find(id);
  if (found == impl_->streams.end())
    return std::nullopt;
  auto& record = found->second;
  if (record.replica) {
    impl_->unsettle(id, record);
    ++record.request.attempt;
  }
  impl_->settle(id, record, replica);
  return record.request;
}

void hub::park(request_id id) {
  const auto found = impl_->streams.find(id);
  if (found == impl_->streams.end() || !found->second.replica)
    return;
  impl_->unsettle(id, found->second);
  ++found->second.request.attempt;
}

const submission* hub::journal(request_id id) const {
  const auto found = impl_->streams.find(id);
  return found == impl_->streams.end() ? nullptr : &found->second.request;
}

std::optional<replica_id> hub::replica_of(request_id id) const {
  const auto found = impl_->streams.find(id);
  if (found == impl_->streams.end())
    return std::nullopt;
  return found->second.replica;
}

std::vector<request_id> hub::streams_of(replica_id replica) const {
  const auto found = impl_->by_replica.find(replica);
  if (found == impl_->by_replica.end())
    return {};
  return {found->second.begin(), found->second.end()};
}

std::vector<request_id> hub::streams() const {
  std::vector<request_id> out;
  out.reserve(impl_->streams.size());
  for (const auto& [id, record] : impl_->streams)
    out.push_back(id);
  return out;
}

hub_stats hub::stats() const {
  auto stats = impl_->counters;
  stats.open = static_cast<std::uint32_t>(impl_->streams.size());
  return stats;
}

} // namespace troupe::engine
