#include "actors/edge/edge_context.hpp"
#include "actors/edge/json_body.hpp"
#include "actors/edge/openai_response.hpp"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <utility>

namespace troupe::actors {

namespace {

using json = nlohmann::ordered_json;

reply json_reply(std::string body, unsigned status = 200) {
  reply r;
  r.status = status;
  r.body = std::move(body);
  return r;
}

api_error no_model(std::string_view name) {
  api_error e;
  e.status = 404;
  e.message = fmt::format("The model '{}' does not exist; GET /v1/models lists the names",
                          name.substr(0, 128));
  e.param = "model";
  e.code = "model_not_found";
  return e;
}

std::string why_not_ready(const front_view& view) {
  if (view.draining)
    return "the node is draining";
  if (view.models.empty())
    return "no model is loaded yet";
  for (const auto& m : view.models)
    if (m.state != "ready")
      return fmt::format("model {} is {}{}{}", m.name, m.state, m.note.empty() ? "" : ": ", m.note);
  return "no step was completed lately";
}

reply ready(const edge_context& edge) {
  if (edge.desk->ready(std::chrono::steady_clock::now(), edge.options.ready_window))
    return json_reply(R"({"status":"ready"})");
  const auto reason = why_not_ready(*edge.desk->view());
  auto r = json_reply(json{{"status", "not ready"}, {"reason", reason}}.dump(
                          -1, ' ', false, json::error_handler_t::replace),
                      503);
  r.headers.emplace_back("Retry-After", "1");
  return r;
}

reply one_model(const edge_context& edge, const std::string& name) {
  const auto view = edge.desk->view();
  const auto* model = find_model(*view, name);
  return model == nullptr ? error_reply(no_model(name)) : json_reply(model_json(*model));
}

reply kill(const edge_context& edge, std::string_view text) {
  const auto body = parse_body(text);
  if (!body)
    return error_reply(body.error());
  const auto kind = body->find("actor");
  if (kind == body->end() || !kind->is_string())
    return error_reply(refuse("actor", "'actor' must name a kind of actor").value());
  const auto killed = edge.options.kill_actor(kind->get<std::string>());
  return killed ? json_reply(R"({"killed":true})") : error_reply(to_api_error(killed.error()));
}

reply drain(const edge_context& edge, std::string_view text) {
  constexpr double usual_deadline_s = 30;
  constexpr double deadline_s_max = 86'400;
  const auto body = parse_body(text);
  if (!body)
    return error_reply(body.error());
  for (const auto& [key, value] : body->items())
    if (key != "node" && key != "deadline_s" && key != "stay")
      return error_reply(refuse(key, "'" + key + "' is not a field of a drain").value());
  const auto node = body->find("node");
  if (node == body->end() || !node->is_string())
    return error_reply(refuse("node", "'node' must name a node of the cluster").value());
  const auto deadline = body->value("deadline_s", json(usual_deadline_s));
  if (!deadline.is_number() || deadline < 0 || deadline > deadline_s_max)
    return error_reply(refuse("deadline_s", "'deadline_s' must be seconds, 0 to 86400").value());
  const auto stay = body->value("stay", json(false));
  if (!stay.is_boolean())
    return error_reply(refuse("stay", "'stay' must be true or false").value());
  const std::chrono::milliseconds limit{static_cast<std::int64_t>(1000 * deadline.get<double>())};
  const auto begun = edge.options.drain_node(node->get<std::string>(), limit, stay.get<bool>());
  if (begun)
    return json_reply(R"({"draining":true})", 202);
  auto e = to_api_error(begun.error());
  e.code = begun.error().code == errc::not_found ? "node_not_found" : "node_down";
  return error_reply(e);
}

} // namespace

reply answer_plain(const edge_context& edge, const route& r, std::string_view body) {
  switch (r.id) {
  case route_id::health:
    return json_reply(R"({"status":"alive"})");
  case route_id::ready:
    return ready(edge);
  case route_id::version:
    return json_reply(json{{"version", edge.options.version}}.dump());
  case route_id::metrics:
    return {200, "text/plain; version=0.0.4; charset=utf-8", edge.numbers->render(), {}};
  case route_id::models:
    return json_reply(models_json(*edge.desk->view()));
  case route_id::model:
    return one_model(edge, r.rest);
  case route_id::status:
    return json_reply(status_json(*edge.desk->view()));
  case route_id::drain:
    return drain(edge, body);
  case route_id::kill:
    return kill(edge, body);
  default:
    return error_reply(to_api_error({errc::internal, "the route has no handler"}));
  }
}

checked<model_entry> pick_model(const front_view& view, const std::string& name) {
  if (view.draining)
    return tl::unexpected(to_api_error(
        {errc::draining, "the node is shutting down and takes no new requests; ask another one"}));
  const auto* model = find_model(view, name);
  if (model == nullptr)
    return tl::unexpected(no_model(name));
  // While it restarts the router keeps the request until a replica is back.
  const bool open = model->state == "ready" || model->state == "restarting";
  if (!open || !model->backend) {
    auto e =
        to_api_error({errc::peer_down, fmt::format("model '{}' is {}{}{}", name, model->state,
                                                   model->note.empty() ? "" : ": ", model->note)});
    e.code = "model_not_ready";
    return tl::unexpected(std::move(e));
  }
  return *model;
}

} // namespace troupe::actors
