#include "actors/edge/kserve/call.hpp"

#include "actors/edge/openai_response.hpp"

#include <utility>

namespace troupe::actors::kserve {

outcome<std::unique_ptr<call>> call::open(std::shared_ptr<service> around, infer_request request,
                                          std::function<void()> wake) {
  auto model = find_ready(*around->desk()->view(), request.model, request.version);
  if (!model)
    return tl::unexpected<failure>(std::move(model.error()));
  if (auto good = check_request(request, *model); !good)
    return tl::unexpected<failure>(std::move(good.error()));
  for (const auto& out : request.outputs)
    if (auto good = out.memory ? around->memory().check(*out.memory) : outcome<void>{}; !good)
      return tl::unexpected<failure>(std::move(good.error()));
  const auto& declared = *model->declared;
  const bool takes_tensors = !declared.library.empty() && declared.base.empty();
  auto text = takes_tensors ? to_tensor_request(request, *model) : to_text_request(request, *model);
  if (!text)
    return tl::unexpected<failure>(std::move(text.error()));
  return std::unique_ptr<call>{new call{std::move(around), std::move(request), std::move(*model),
                                        std::move(*text), std::move(wake)}};
}

call::call(std::shared_ptr<service> around, infer_request request, model_view model,
           text_request text, std::function<void()> wake)
    : around_{std::move(around)}, presence_{around_->desk()->open_answer()}, request_{std::move(
                                                                                 request)},
      model_{std::move(model)}, text_{std::move(text)}, inbox_{std::make_shared<inbox>(
                                                            1, std::move(wake))} {}

call::~call() { abandon(); }

void call::begin() {
  auto sink = std::make_shared<choice_sink>(inbox_, 0,
                                            sink_origin{.model = model_.name,
                                                        .arrival = request_.arrival,
                                                        .numbers = around_->numbers(),
                                                        .counts = around_->counts(),
                                                        .counted_as = {model_.name, model_.version},
                                                        .stream = text_.stream,
                                                        .batch_size = text_.request.batch_size,
                                                        .tells_executions = tensors()});
  sink_ = sink;
  inference_request_ptr request = std::make_shared<const inference_request>(text_.request);
  if (model_.door)
    model_.door->let_in(std::move(request), std::move(sink));
  else
    post(model_.backend, execute_atom_v, std::move(request), response_sink_ptr{std::move(sink)});
}

infer_response call::blank() const {
  return {.model = model_.name, .version = model_.version, .id = request_.id};
}

infer_response call::respond(const response_part& part) const {
  auto r = blank();
  r.last = part.finish != engine::finish_reason::none;
  if (part.finish == engine::finish_reason::error) {
    r.error = to_failure(part.why);
    return r;
  }
  r.outputs = text_outputs(text_, part);
  if (auto placed = place(r.outputs); !placed) {
    r.outputs.clear();
    r.error = std::move(placed.error());
    r.last = true;
  }
  return r;
}

outcome<void> call::place(std::vector<tensor>& outputs) const {
  for (const auto& wanted : request_.outputs) {
    if (!wanted.memory)
      continue;
    for (auto& t : outputs) {
      if (t.name != wanted.name)
        continue;
      if (auto written = around_->memory().write(*wanted.memory, t.data); !written)
        return written;
      t.memory = wanted.memory;
      t.memory->bytes = t.data.size();
      t.data.clear();
    }
  }
  return {};
}

void call::take_text(response_part part, std::vector<infer_response>& all) {
  const bool ends = part.finish != engine::finish_reason::none;
  if (!text_.stream) {
    merge(whole_, std::move(part));
    if (ends)
      all.push_back(respond(whole_));
  } else if (ends || part.tokens > 0 || !part.text.empty()) {
    all.push_back(respond(part));
  }
}

/// A part may hold several responses, and the last of the request may be one without outputs.
void call::take_tensors(response_part part, std::vector<infer_response>& all) {
  const bool ends = part.finish != engine::finish_reason::none;
  const bool failed = part.finish == engine::finish_reason::error;
  const auto first = all.size();
  for (auto& response : part.responses) {
    auto& r = all.emplace_back(blank());
    r.parameters = std::move(response.parameters);
    for (auto& t : response.outputs)
      r.outputs.push_back(
          {std::move(t.name), t.type, std::move(t.shape), std::move(t.data), std::nullopt});
    if (auto placed = place(r.outputs); !placed) {
      r.outputs.clear();
      r.error = std::move(placed.error());
      r.last = true;
      return;
    }
  }
  if (!ends)
    return;
  if (failed || all.size() == first) {
    all.push_back(blank());
    hides_end_ = !failed && !wants_empty_end();
  }
  all.back().last = true;
  if (failed)
    all.back().error = to_failure(part.why);
}

/// Holds back what has come until the last response, and says then whether it was one.
void call::keep_one(std::vector<infer_response>& all) {
  bool ended = false;
  for (auto& r : all) {
    ended = r.last;
    if (r.last && r.outputs.empty() && !r.error && responses_ > 0)
      break;
    ++responses_;
    kept_ = std::move(r);
  }
  all.clear();
  if (!ended)
    return;
  kept_.last = true;
  if (responses_ != 1 && !kept_.error)
    kept_.error = failure{failure_code::invalid_arg,
                          "model '" + model_.name + "' produced " + std::to_string(responses_) +
                              " responses to a request whose answer holds one; use "
                              "generate_stream, or ModelStreamInfer of the gRPC service"};
  all.push_back(std::move(kept_));
}

bool call::wants_empty_end() const {
  const auto found = request_.parameters.find("triton_enable_empty_final_response");
  const auto* wanted =
      found == request_.parameters.end() ? nullptr : std::get_if<bool>(&found->second);
  return wanted != nullptr && *wanted;
}

std::vector<infer_response> call::take() {
  std::vector<infer_response> all;
  if (ended_)
    return all;
  for (auto& entry : inbox_->take()) {
    if (tensors())
      take_tensors(std::move(entry.part), all);
    else
      take_text(std::move(entry.part), all);
    if (!all.empty() && all.back().last)
      break;
  }
  if (one_ && tensors())
    keep_one(all);
  if (!all.empty() && all.back().last) {
    if (all.back().error)
      abandon();
    ended_ = true;
    presence_.reset();
    model_.lease.reset();
  }
  return all;
}

void call::abandon() {
  if (std::exchange(ended_, true))
    return;
  inbox_->close();
  if (auto sink = sink_.lock())
    post(model_.backend, abandon_atom_v, response_sink_ptr{std::move(sink)});
  presence_.reset();
  model_.lease.reset();
}

} // namespace troupe::actors::kserve
