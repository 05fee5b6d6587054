#include "tests/sim/cluster.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

using std::chrono::milliseconds;

namespace {

/// Everything ends and comes to rest within this, once faults stopped.
constexpr auto rest_limit = std::chrono::seconds{60};
constexpr auto rest_tick = milliseconds{25};

} // namespace

cluster::cluster(std::uint64_t seed, sabotage planted, trace::level how)
    : plan_{draw_world(seed)}, log_{how}, random_{seed ^ 0x5deece66dU},
      net_{time_, log_, random_(), plan_.net}, clients_{{.vocab = plan_.vocab,
                                                         .max_model_len = plan_.max_model_len,
                                                         .deaths_max = plan_.router.deaths_max,
                                                         .resume_limit = plan_.router.resume_limit},
                                                        log_},
      around_{.time = time_,
              .net = net_,
              .log = log_,
              .plan = plan_,
              .clients = clients_,
              .random = random_,
              .planted = planted,
              .faults_end = time_.now() + plan_.busy,
              .incarnations = 0,
              .crash =
                  [this](node_index at) {
                    end_process(at);
                    come_back(at, milliseconds{50 + around_.pick(400)});
                  },
              .leave =
                  [this](node_index at) {
                    end_process(at);
                    come_back(at, milliseconds{100 + around_.pick(1000)});
                  }} {
  net_.on_fenced = [this](node_index a, node_index b) { fenced(a, b); };
  build();
}

// -- processes come and go ------------------------------------------------------------------------

void cluster::build() {
  for (std::uint32_t i = 0; i < plan_.fronts; ++i)
    fronts_.push_back({.at = net_.add(fmt::format("front-{}", i)), .who = nullptr});
  for (std::size_t i = 0; i < plan_.stages.size(); ++i)
    stages_.push_back({.at = net_.add(fmt::format("stage-{}", i)), .who = nullptr});
  for (const auto& f : fronts_) {
    for (const auto& s : stages_)
      net_.introduce(f.at, s.at);
  }
  for (std::size_t i = 0; i < fronts_.size(); ++i)
    start_front(i);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    stages_[i].returning = true;
    time_.after(plan_.stages[i].joins, [this, i] { start_stage(i); });
  }
}

void cluster::start_front(std::size_t which) {
  auto& place = fronts_[which];
  place.returning = false;
  place.who = std::make_unique<front>(around_, place.at, hub_id{++last_hub_});
  net_.start(place.at, *place.who);
}

void cluster::start_stage(std::size_t which) {
  auto& place = stages_[which];
  place.returning = false;
  place.who = std::make_unique<stage>(around_, place.at, plan_.stages[which]);
  net_.start(place.at, *place.who);
}

bool cluster::is_front(node_index at) const { return value(at) < fronts_.size(); }

/// The process may be the one that runs now, so its memory lives on to the end of the run.
void cluster::end_process(node_index at) {
  net_.kill(at);
  if (is_front(at)) {
    auto& place = fronts_[value(at)];
    clients_.front_gone(place.who->hub());
    matched_tokens_ += place.who->router().stats().prompt_tokens_matched;
    graveyard_.push_back(std::move(place.who));
  } else {
    auto& place = stages_[value(at) - fronts_.size()];
    count(*place.who);
    graveyard_.push_back(std::move(place.who));
  }
}

void cluster::count(const stage& one) {
  preemptions_ += one.sum_of(&engine::scheduler_stats::preemptions);
  blocks_restored_ += one.sum_of(&engine::scheduler_stats::blocks_restored);
}

void cluster::come_back(node_index at, duration after) {
  const auto which = is_front(at) ? value(at) : value(at) - fronts_.size();
  auto& returning = is_front(at) ? fronts_[which].returning : stages_[which].returning;
  if (std::exchange(returning, true))
    return;
  time_.after(after, [this, at, which] { is_front(at) ? start_front(which) : start_stage(which); });
}

/// Two processes that gave each other up: they meet again as they are, or one starts anew first.
void cluster::fenced(node_index a, node_index b) {
  const auto stage_side = is_front(a) ? b : a;
  const auto front_side = is_front(a) ? a : b;
  const auto who = around_.pick(6) == 0 ? front_side : stage_side;
  const auto other = who == a ? b : a;
  ++fences_due_;
  time_.after(milliseconds{50 + around_.pick(400)},
              [this, who, other, life = net_.life(who), other_life = net_.life(other)] {
                --fences_due_;
                if (!net_.alive(who) || net_.life(who) != life)
                  return;
                if (plan_.restarts_when_fenced) {
                  end_process(who);
                  come_back(who, milliseconds{20 + around_.pick(200)});
                } else if (net_.alive(other) && net_.life(other) == other_life) {
                  ++forgiven_;
                  net_.forgive(who, other);
                }
              });
}

// -- clients --------------------------------------------------------------------------------------

void cluster::plan_requests() {
  const auto busy = static_cast<std::uint64_t>(plan_.busy.count());
  duration when{};
  for (std::uint32_t i = 0; i < plan_.requests; ++i) {
    // In bursts, so that queues fill, and often just before something breaks.
    if (i == 0 || around_.pick(3) == 0) {
      when = duration{static_cast<duration::rep>(random_.below(busy))};
      if (!plan_.faults.empty() && around_.pick(2) == 0)
        when = std::max(duration{}, plan_.faults[around_.pick(plan_.faults.size())].when -
                                        milliseconds{around_.pick(150)});
    }
    time_.after(when, [this] { ask(false); });
  }
}

/// Prompts begin alike often, so that blocks are shared.
std::vector<token_id> cluster::draw_prompt() {
  const auto length = 1 + around_.pick(plan_.max_model_len - 1);
  splitmix64 words{around_.pick(3)};
  std::vector<token_id> prompt(length);
  const auto fork = around_.pick(2) == 0 ? length : around_.pick(length);
  const auto vocab = static_cast<std::uint64_t>(plan_.vocab);
  for (std::uint32_t i = 0; i < length; ++i)
    prompt[i] = static_cast<token_id>((i < fork ? words() : random_()) % vocab);
  return prompt;
}

record cluster::draw_request() {
  const auto one_in = [&](std::uint32_t odds) { return odds > 0 && around_.pick(odds) == 0; };
  record fresh;
  auto& asked = fresh.asked;
  const auto& stage = plan_.stages.at(around_.pick(plan_.stages.size()));
  asked.model = stage.replicas.at(around_.pick(stage.replicas.size())).model;
  asked.prompt = draw_prompt();
  auto& sampling = asked.sampling;
  sampling.temperature = one_in(3) ? 0.0F : 0.5F + 0.25F * static_cast<float>(around_.pick(4));
  sampling.top_k = static_cast<std::int32_t>(around_.pick(3) * 20);
  sampling.top_p = one_in(2) ? 1.0F : 0.9F;
  sampling.min_p = one_in(4) ? 0.1F : 0.0F;
  sampling.seed = random_();
  sampling.choice = around_.pick(3);
  sampling.max_tokens = 1 + around_.pick(one_in(2) ? 6 : 80);
  sampling.ignore_eos = one_in(2);
  sampling.eos_token_ids = {0};
  if (one_in(4))
    sampling.stop_token_ids = {static_cast<token_id>(around_.pick(plan_.vocab))};
  asked.priority = static_cast<std::int32_t>(around_.pick(3)) - 1;
  asked.cache_salt = one_in(4) ? "salt" : "";
  return fresh;
}

void cluster::ask(bool probe) {
  auto* at = any_front(random_());
  auto fresh = draw_request();
  if (at == nullptr)
    return;
  const auto one_in = [&](std::uint32_t odds) { return odds > 0 && around_.pick(odds) == 0; };
  fresh.probe = probe;
  if (!probe) {
    fresh.poison = one_in(plan_.poison);
    if (one_in(plan_.timeouts))
      fresh.asked.timeout = milliseconds{1 + around_.pick(400)};
  }
  const auto id = at->submit(std::move(fresh));
  if (!id || probe || !one_in(plan_.cancels))
    return;
  const auto when = milliseconds{around_.pick(around_.pick(2) == 0 ? 10 : 1500)};
  net_.run_in(node_index{static_cast<std::uint32_t>(
                  std::ranges::find(fronts_, at, [](const auto& f) { return f.who.get(); }) -
                  fronts_.begin())},
              when, [this, at, id = *id, forget = one_in(3)] {
                if (!clients_.is_open(id))
                  return;
                forget ? at->forget(id) : at->cancel(id);
              });
}

// -- the run --------------------------------------------------------------------------------------

void cluster::run_until(time_point when) {
  bool there = false;
  time_.after(when - time_.now(), [&there] { there = true; });
  while (!there && time_.step()) {
  }
}

void cluster::run() {
  plan_requests();
  plan_faults();
  run_until(around_.faults_end);
  end_faults();
  come_to_rest("last fault");
  ask_probes();
  check_indexes();
  check_home();
}

bool cluster::at_rest() const {
  const auto quiet = [](const auto& place) { return place.who != nullptr && !place.returning; };
  return clients_.open_count() == 0 && net_.all_connected() && fences_due_ == 0 &&
         std::ranges::all_of(fronts_,
                             [&](const auto& f) { return quiet(f) && !f.who->draining(); }) &&
         std::ranges::all_of(stages_, [&](const auto& s) {
           return quiet(s) && !s.who->draining() && s.who->quiet() && !net_.stopped(s.at);
         });
}

void cluster::come_to_rest(const char* what) {
  const auto limit = time_.now() + rest_limit;
  while (!at_rest()) {
    if (time_.now() > limit) {
      const auto open = clients_.open();
      TROUPE_PROMISE(false, "no rest after the {}: {} requests have no end, the first is {}", what,
                     open.size(), open.empty() ? 0 : value(open.front()));
    }
    run_until(time_.now() + rest_tick);
  }
}

/// The cluster serves as if nothing had happened.
void cluster::ask_probes() {
  // Every front hears of every replica first.
  run_until(time_.now() + plan_.net.delay_max * 4 + milliseconds{1});
  for (std::uint32_t i = 0; i < 1 + plan_.fronts; ++i) {
    ask(true);
    come_to_rest("probe");
  }
}

/// After quiet time each router knows exactly what each pool has.
void cluster::check_indexes() {
  run_until(time_.now() + 4 * (plan_.load_every + plan_.net.delay_max) + std::chrono::seconds{3});
  for (const auto& f : fronts_) {
    auto& router = f.who->router();
    matched_tokens_ += router.stats().prompt_tokens_matched;
    if (plan_.router.policy != engine::routing_policy::prefix)
      continue;
    for (const auto& s : stages_) {
      for (const auto& [id, held] : s.who->indexed()) {
        auto known = router.indexed(id);
        std::ranges::sort(known);
        // An index with too little room knows less, and nothing that is wrong.
        const bool small = plan_.router.index_blocks_max < 1000;
        const bool right = small ? std::ranges::includes(held, known) : known == held;
        TROUPE_PROMISE(right, "{} knows {} blocks of replica {}, which has {}", net_.name(f.at),
                       known.size(), value(id), held.size());
      }
    }
  }
}

void cluster::check_home() {
  for (const auto& s : stages_) {
    count(*s.who);
    s.who->check_home();
  }
  for (const auto& f : fronts_) {
    const auto stats = f.who->router().stats();
    TROUPE_PROMISE(stats.hub.open == 0 && stats.parked == 0);
  }
}

outcome cluster::report() const {
  return {.broken = {},
          .digest = log_.digest(),
          .events = time_.happened(),
          .took = time_.now() - time_point{std::chrono::hours{1}},
          .clients = clients_.counts(),
          .preemptions = preemptions_,
          .blocks_restored = blocks_restored_,
          .forgiven = forgiven_,
          .faults = faults_,
          .matched_tokens = matched_tokens_,
          .last = {log_.last().begin(), log_.last().end()}};
}

outcome run_seed(std::uint64_t seed, sabotage planted, trace::level how) {
  cluster world{seed, planted, how};
  std::string broken;
  try {
    world.run();
  } catch (const engine::test::broken_promise& why) {
    broken = why.what();
  }
  auto out = world.report();
  out.broken = std::move(broken);
  return out;
}

} // namespace troupe::sim
