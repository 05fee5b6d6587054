#pragma once

#include "troupe/base/error.hpp"

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// How the ranks of a tensor-parallel replica exchange. An executor sees `collective` alone.
namespace troupe::engine {

/// The reason that a rank gives, with its name in front unless that is in it.
[[nodiscard]] error named_for(std::string_view rank, const error& why);

/// One exchange, the same on all ranks but for `mine`.
struct exchange_args {
  /// What this rank gives, as large as every other rank's. It may lie at its own place in `all`.
  std::span<const std::byte> mine;
  /// ranks() times as large: what each rank gave, in the order of ranks.
  std::span<std::byte> all;
  /// The same number on all ranks, for example that of the step; a rank with another one is told
  /// apart instead of being mixed in.
  std::uint64_t tag = 0;
  /// How long to wait for the slowest rank.
  std::chrono::milliseconds limit{10'000};
};

/// One rank's end of a group. Exchanges are numbered by their order, which is the same on all
/// ranks; one thread of a rank exchanges at a time. Nothing here hangs: an exchange ends with what
/// all ranks gave, with its limit, or with an abort, and an abort is final for the group: each
/// later exchange of any rank fails with its reason, and the ranks are made anew with a new group.
///
/// An executor whose products are summed elsewhere (NCCL) exchanges the keys of its own
/// communicator here, polls failure() while it waits for a device, and aborts as all others do.
class collective {
public:
  virtual ~collective() = default;

  [[nodiscard]] virtual std::uint32_t rank() const noexcept = 0;
  [[nodiscard]] virtual std::uint32_t ranks() const noexcept = 0;
  /// What to call a rank in a sentence: "rank 1 (node stage-b)".
  [[nodiscard]] virtual std::string name_of(std::uint32_t rank) const = 0;

  /// Gives `mine` to all ranks and waits for theirs.
  /// @errors timed_out: names the ranks that did not come; bad_shape, conflict: a rank came with
  ///         another size or tag; else what the group was aborted with. Each aborts the group.
  /// @cost   two copies of `mine` and one of what each other rank gave
  [[nodiscard]] virtual result<void> all_gather(const exchange_args& args) = 0;
  /// Ends the group's work for all ranks: exchanges that wait and that come later fail with `why`.
  /// The first reason stays. From any thread.
  virtual void abort(error why) = 0;
  /// The same for a reason of this rank's own, which is named in it.
  void abort_for_me(const error& why) { abort(named_for(name_of(rank()), why)); }
  /// Why the group was aborted, if it was. From any thread.
  [[nodiscard]] virtual std::optional<error> failure() const = 0;
};

/// Bytes with their owner: what a rank gave, shared by those that it was given to.
struct given_bytes {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

/// One exchange of one rank, on its way.
struct exchange_frame {
  std::uint32_t from = 0;
  /// Counts the exchanges of the group, from 1.
  std::uint64_t number = 0;
  std::uint64_t tag = 0;
  given_bytes given;
};

/// What brings a rank's frames to the others: the actors put a wire behind it. Called by the rank's
/// own thread, or by whoever aborts; neither call may wait for another rank.
class rank_channel {
public:
  virtual ~rank_channel() = default;

  /// Brings the frame to every other rank's rank_end::deliver, each rank's frames in order.
  virtual void send(const exchange_frame& frame) = 0;
  /// Brings the reason to every other rank's rank_end::lose.
  virtual void abort(const error& why) = 0;
};

/// A rank's end of a group, over whatever channel: it collects what the channel delivers. The
/// channel's receiving side calls deliver() and lose() from any thread.
class rank_end final : public collective {
public:
  /// `names` has one entry a rank, as name_of() says them.
  /// @pre rank < names.size()
  rank_end(std::uint32_t rank, std::vector<std::string> names,
           std::unique_ptr<rank_channel> channel);

  [[nodiscard]] std::uint32_t rank() const noexcept override { return rank_; }
  [[nodiscard]] std::uint32_t ranks() const noexcept override {
    return static_cast<std::uint32_t>(names_.size());
  }
  [[nodiscard]] std::string name_of(std::uint32_t rank) const override { return names_[rank]; }
  [[nodiscard]] result<void> all_gather(const exchange_args& args) override;
  void abort(error why) override;
  [[nodiscard]] std::optional<error> failure() const override;

  /// Takes what another rank gave. A frame that cannot be right fails this end of the group.
  void deliver(exchange_frame frame);
  /// Fails this end alone: the others learn of it in another way, as of the death of a peer.
  void lose(error why);

private:
  /// A rank is at most one exchange ahead: it needs this rank's part of every one.
  using inbox = std::array<std::optional<exchange_frame>, 2>;

  [[nodiscard]] std::optional<error> wait_for_all(std::unique_lock<std::mutex>& lock,
                                                  const exchange_args& args);
  [[nodiscard]] std::optional<error> take_all(const exchange_args& args);
  [[nodiscard]] bool all_came() const;
  [[nodiscard]] std::optional<error> check(const exchange_frame& frame) const;

  const std::uint32_t rank_;
  const std::vector<std::string> names_;
  const std::unique_ptr<rank_channel> channel_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<inbox> inboxes_;
  /// The number of the exchange that this rank began last, and of the one that it ended last.
  std::uint64_t number_ = 0;
  std::uint64_t completed_ = 0;
  std::optional<error> failure_;
};

/// The ends of a group whose ranks are threads of this process, in the order of ranks.
/// @pre ranks >= 1
[[nodiscard]] std::vector<std::shared_ptr<collective>> make_local_group(std::uint32_t ranks);

} // namespace troupe::engine
