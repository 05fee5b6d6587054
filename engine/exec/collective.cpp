#include "engine/exec/collective.hpp"

#include "troupe/base/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace troupe::engine {

error named_for(std::string_view rank, const error& why) {
  if (why.note.find(rank) != std::string::npos)
    return why;
  return {why.code, fmt::format("{}: {}", rank, why.note)};
}

rank_end::rank_end(std::uint32_t rank, std::vector<std::string> names,
                   std::unique_ptr<rank_channel> channel)
    : rank_{rank}, names_{std::move(names)}, channel_{std::move(channel)}, inboxes_(names_.size()) {
  TROUPE_CHECK(rank_ < names_.size(), "rank {} of a group of {}", rank_, names_.size());
}

std::optional<error> rank_end::failure() const {
  const std::lock_guard lock{mutex_};
  return failure_;
}

void rank_end::lose(error why) {
  {
    const std::lock_guard lock{mutex_};
    if (failure_)
      return;
    failure_ = std::move(why);
  }
  changed_.notify_all();
}

void rank_end::abort(error why) {
  if (failure())
    return; // Whoever failed it first has told the others.
  lose(why);
  // Without the lock: a channel between threads calls the other members, which call this one.
  channel_->abort(why);
}

std::optional<error> rank_end::check(const exchange_frame& frame) const {
  if (frame.from >= names_.size() || frame.from == rank_)
    return error{errc::corrupt_data, fmt::format("an exchange came from rank {} of a group of {}",
                                                 frame.from, names_.size())};
  const bool place = frame.number > completed_ && frame.number <= number_ + 1;
  if (!place || inboxes_[frame.from][frame.number % 2])
    return error{errc::corrupt_data,
                 fmt::format("{} sent its exchange {} where {} waits for {}", names_[frame.from],
                             frame.number, names_[rank_], completed_ + 1)};
  return std::nullopt;
}

void rank_end::deliver(exchange_frame frame) {
  std::optional<error> wrong;
  {
    const std::lock_guard lock{mutex_};
    if (failure_)
      return;
    wrong = check(frame);
    if (!wrong)
      inboxes_[frame.from][frame.number % 2] = std::move(frame);
  }
  if (wrong)
    return abort(std::move(*wrong));
  changed_.notify_all();
}

bool rank_end::all_came() const {
  for (std::uint32_t from = 0; from < names_.size(); ++from)
    if (from != rank_ && !inboxes_[from][number_ % 2])
      return false;
  return true;
}

std::optional<error> rank_end::wait_for_all(std::unique_lock<std::mutex>& lock,
                                            const exchange_args& args) {
  changed_.wait_for(lock, args.limit, [&] { return failure_ || all_came(); });
  if (failure_)
    return failure_;
  std::vector<std::string> missing;
  for (std::uint32_t from = 0; from < names_.size(); ++from)
    if (from != rank_ && !inboxes_[from][number_ % 2])
      missing.push_back(names_[from]);
  if (missing.empty())
    return std::nullopt;
  return error{errc::timed_out, fmt::format("{} waited {} ms for {}", names_[rank_],
                                            args.limit.count(), fmt::join(missing, ", "))};
}

std::optional<error> rank_end::take_all(const exchange_args& args) {
  const std::size_t size = args.mine.size();
  for (std::uint32_t from = 0; from < names_.size(); ++from) {
    std::byte* const to = args.all.data() + from * size;
    if (from == rank_) {
      if (to != args.mine.data() && size != 0)
        std::memmove(to, args.mine.data(), size);
      continue;
    }
    auto& place = inboxes_[from][number_ % 2];
    if (place->tag != args.tag)
      return error{errc::conflict, fmt::format("{} works at step {}, {} at step {}", names_[from],
                                               place->tag, names_[rank_], args.tag)};
    if (place->given.bytes.size() != size)
      return error{errc::bad_shape, fmt::format("{} gave {} bytes, {} {}", names_[from],
                                                place->given.bytes.size(), names_[rank_], size)};
    if (size != 0)
      std::memcpy(to, place->given.bytes.data(), size);
    place.reset();
  }
  completed_ = number_;
  return std::nullopt;
}

result<void> rank_end::all_gather(const exchange_args& args) {
  TROUPE_CHECK(args.all.size() == args.mine.size() * names_.size(),
               "an exchange of {} bytes into {} for {} ranks", args.mine.size(), args.all.size(),
               names_.size());
  auto copy = std::make_shared<std::vector<std::byte>>(args.mine.begin(), args.mine.end());
  exchange_frame frame{.from = rank_, .number = 0, .tag = args.tag, .given = {copy, *copy}};
  {
    const std::lock_guard lock{mutex_};
    if (failure_)
      return fail(*failure_);
    frame.number = ++number_;
  }
  channel_->send(frame);
  std::unique_lock lock{mutex_};
  auto wrong = wait_for_all(lock, args);
  if (!wrong)
    wrong = take_all(args);
  lock.unlock();
  if (!wrong)
    return {};
  abort(*wrong);
  return fail(std::move(*wrong));
}

namespace {

/// The members of a group in one process, which live and die together.
struct local_group {
  std::vector<std::unique_ptr<rank_end>> members;
};

/// Hands frames to the other members in the caller's thread.
class local_channel final : public rank_channel {
public:
  local_channel(local_group& group, std::uint32_t rank) : group_{&group}, rank_{rank} {}

  void send(const exchange_frame& frame) override {
    for_others([&](rank_end& other) { other.deliver(frame); });
  }
  void abort(const error& why) override {
    for_others([&](rank_end& other) { other.lose(why); });
  }

private:
  template <class Visit>
  void for_others(Visit visit) {
    for (std::uint32_t to = 0; to < group_->members.size(); ++to)
      if (to != rank_)
        visit(*group_->members[to]);
  }

  local_group* group_;
  std::uint32_t rank_;
};

} // namespace

std::vector<std::shared_ptr<collective>> make_local_group(std::uint32_t ranks) {
  auto group = std::make_shared<local_group>();
  std::vector<std::string> names;
  for (std::uint32_t rank = 0; rank < ranks; ++rank)
    names.push_back(fmt::format("rank {}", rank));
  for (std::uint32_t rank = 0; rank < ranks; ++rank)
    group->members.push_back(
        std::make_unique<rank_end>(rank, names, std::make_unique<local_channel>(*group, rank)));
  std::vector<std::shared_ptr<collective>> ends;
  for (const auto& member : group->members)
    ends.emplace_back(group, member.get());
  return ends;
}

} // namespace troupe::engine
