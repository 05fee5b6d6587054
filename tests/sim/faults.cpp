// The part of the cluster that breaks it.
#include "tests/sim/cluster.hpp"

#include <algorithm>

namespace troupe::sim {

using std::chrono::milliseconds;

void cluster::plan_faults() {
  for (const auto& each : plan_.faults) {
    time_.after(each.when, [this, &each] { strike(each); });
  }
}

front* cluster::any_front(std::uint64_t draw) {
  for (std::size_t i = 0; i < fronts_.size(); ++i) {
    const auto& one = fronts_[(draw + i) % fronts_.size()];
    if (one.who != nullptr && !net_.stopped(one.at))
      return one.who.get();
  }
  return nullptr;
}

std::size_t cluster::any_stage(std::uint64_t draw) const { return draw % stages_.size(); }

void cluster::strike(const fault_plan& what) {
  auto& stage = stages_[any_stage(what.draw)];
  auto& front = fronts_[(what.draw >> 16) % fronts_.size()];
  const bool stage_runs = stage.who != nullptr && !net_.stopped(stage.at);
  const bool front_runs = front.who != nullptr && !net_.stopped(front.at);
  log_.note(time_.now(), "fault: {}", to_string(what.what));
  ++faults_;
  switch (what.what) {
  case fault::kill_stage:
    // One that stands still can be killed too.
    if (stage.who != nullptr) {
      end_process(stage.at);
      come_back(stage.at, what.lasts);
    }
    return;
  case fault::kill_front:
    if (front.who != nullptr) {
      end_process(front.at);
      come_back(front.at, what.lasts);
    }
    return;
  case fault::stop_stage:
    if (stage_runs)
      stop(stage.at, what.lasts);
    return;
  case fault::stop_front:
    if (front_runs)
      stop(front.at, what.lasts);
    return;
  case fault::cut:
    cut(what);
    return;
  case fault::fail_step:
    if (stage_runs)
      stage.who->fail_step(static_cast<std::uint32_t>(what.draw >> 32));
    return;
  case fault::restart_replica:
    if (stage_runs)
      stage.who->restart_replica(static_cast<std::uint32_t>(what.draw >> 32));
    return;
  case fault::drain_stage:
    if (stage_runs)
      stage.who->drain(what.lasts);
    return;
  case fault::drain_front:
    if (front_runs)
      front.who->drain(what.lasts);
    return;
  }
}

void cluster::stop(node_index at, duration lasts) {
  net_.stop(at);
  time_.after(lasts, [this, at, life = net_.life(at)] {
    if (net_.life(at) == life)
      go_on(at);
  });
}

void cluster::go_on(node_index at) {
  if (!net_.stopped(at))
    return;
  for (const auto& f : fronts_) {
    if (f.at == at && f.who)
      clients_.front_wakes(f.who->hub(), time_.now());
  }
  net_.go_on(at);
}

void cluster::cut(const fault_plan& what) {
  const auto a = fronts_[(what.draw >> 16) % fronts_.size()].at;
  const auto b = stages_[any_stage(what.draw)].at;
  net_.cut(a, b);
  time_.after(what.lasts, [this, a, b] { net_.heal(a, b); });
}

/// From here on nothing is broken any more; what is broken comes back in its own time.
void cluster::end_faults() {
  log_.note(time_.now(), "no more faults");
  for (const auto& f : fronts_) {
    go_on(f.at);
    for (const auto& s : stages_)
      net_.heal(f.at, s.at);
  }
  for (const auto& s : stages_)
    go_on(s.at);
}

} // namespace troupe::sim
