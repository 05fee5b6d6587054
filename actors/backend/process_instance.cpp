#include "actors/backend/process_instance.hpp"

#include "actors/backend/custom_exchange.hpp"
#include "troupe/actors/backends.hpp"
#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace troupe::actors {

namespace {

constexpr double usual_limit_s = 300;
/// The last call is not worth a longer wait.
constexpr std::chrono::milliseconds last_limit{30'000};

time_point now() { return std::chrono::steady_clock::now(); }

} // namespace

std::string process_name(const std::string& backend, const std::string& model) {
  return fmt::format("the process of the backend '{}' of model '{}'", backend, model);
}

std::chrono::milliseconds process_limit(std::string_view written) {
  const auto given = std::strtod(std::string{written}.c_str(), nullptr);
  return std::chrono::milliseconds{
      static_cast<std::int64_t>((given > 0 ? given : usual_limit_s) * 1000)};
}

process_instance_state::~process_instance_state() {
  if (link_)
    link_->end(std::min(limit_, last_limit));
}

result<void> process_instance_state::start() {
  const auto& model = *options_.model;
  auto link = process_link::start(
      {.who = process_name(*model.backend, model.name),
       .host = options_.host,
       .on_lost = [to = custom_instance{self_}] { post(to, reset_atom::value); }});
  if (!link)
    return fail(link.error());
  process::Order order;
  auto& what = *order.mutable_load();
  put(what, facts_of(model, options_.version, options_.number));
  what.set_backend(*model.backend);
  what.set_library(model.library.string());
  what.set_decoupled(*model.decoupled);
  const auto ready = (*link)->call(std::move(order), limit_);
  if (!ready) {
    (*link)->end(last_limit);
    return fail(ready.error());
  }
  link_ = std::move(*link);
  return {};
}

/// The first time, what goes wrong is the answer. Later the answer waits for the process that
/// try_again() starts.
caf::result<void> process_instance_state::load() {
  if (link_)
    return {};
  if (recovering_) {
    auto typed = self_->make_response_promise<void>();
    back_ = typed;
    return typed;
  }
  if (auto done = start(); !done)
    return to_caf(done.error());
  return {};
}

caf::result<void> process_instance_state::watch() {
  if (!link_)
    return to_caf(ended());
  auto typed = self_->make_response_promise<void>();
  lost_ = typed;
  return typed;
}

error process_instance_state::ended() const {
  const auto& model = *options_.model;
  return {errc::peer_down, process_name(*model.backend, model.name) + " has ended"};
}

void process_instance_state::lose() {
  // Of one that has been let go already, or of one that died while it loaded.
  if (!link_ || link_->alive())
    return;
  link_.reset();
  recovering_ = true;
  if (lost_.pending())
    lost_.deliver(to_caf(ended()));
  const auto delay = pause_.next(now());
  log_warn("model {}: {} is started again in {} ms", options_.model->name,
           process_name(*options_.model->backend, options_.model->name), delay.count());
  tell_later(self_, delay, tick_atom::value);
}

void process_instance_state::try_again() {
  if (link_)
    return;
  if (const auto done = start(); !done) {
    const auto delay = pause_.next(now());
    log_error("model {}: {}; again in {} ms", options_.model->name, done.error().note,
              delay.count());
    return tell_later(self_, delay, tick_atom::value);
  }
  if (back_.pending())
    back_.deliver(caf::unit);
}

/// What waits goes to other instances, or waits on, once there is no process any more.
void process_instance_state::serve() {
  while (link_ && link_->alive()) {
    auto jobs = options_.queue->take(options_.number, std::chrono::steady_clock::now());
    if (jobs.empty())
      return;
    execute(std::move(jobs));
  }
  options_.queue->leave(options_.number);
}

void process_instance_state::execute(custom_batch jobs) {
  const auto ways = open_ways(options_.model, std::move(jobs));
  if (ways.empty())
    return;
  process::Order order;
  for (const auto& way : ways)
    put(*order.mutable_execute()->add_requests(), way->input());
  const auto done = link_->call(std::move(order), limit_, ways);
  close_ways(ways, *options_.model, done ? result<void>{} : fail(done.error()));
}

custom_instance::behavior_type process_instance_state::make_behavior(instance_options options) {
  options_ = std::move(options);
  limit_ = process_limit(options_.model->parameter("PROCESS_LIMIT_SECONDS"));
  return {
      [this](load_atom) { return load(); },     [this](status_atom) { return watch(); },
      [this](execute_atom) { return serve(); }, [this](reset_atom) { lose(); },
      [this](tick_atom) { try_again(); },
  };
}

custom_instance::behavior_type
run_process_instance(custom_instance::stateful_pointer<process_instance_state> self,
                     instance_options options) {
  return state(self).make_behavior(std::move(options));
}

/// Asked in a process of its own too: a library that crashes in its constructor ends nothing here.
result<config::backend_needs> ask_in_process(const config::backend_question& question,
                                             const std::filesystem::path& library) {
  const auto who = process_name(question.backend, question.model);
  auto link = process_link::start({.who = who,
                                   .host = std::make_shared<library_host>(question.model, nullptr),
                                   .on_lost = [] {}});
  if (!link)
    return fail(link.error());
  process::Order order;
  auto& what = *order.mutable_declare();
  put(what, backends::model_facts{.name = question.model,
                                  .version = question.version,
                                  .directory = question.model_directory,
                                  .parameters = question.parameters,
                                  .config_json = {}});
  what.set_backend(question.backend);
  what.set_library(library.string());
  const auto limit = question.parameters.find("PROCESS_LIMIT_SECONDS");
  const auto answer = (*link)->call(
      std::move(order), process_limit(limit == question.parameters.end() ? "" : limit->second));
  (*link)->end(last_limit);
  if (!answer)
    return fail(answer.error());
  const auto wishes = declarations_in(answer->declared());
  if (!wishes)
    return fail(wishes.error());
  return needs_of(*wishes);
}

} // namespace troupe::actors
