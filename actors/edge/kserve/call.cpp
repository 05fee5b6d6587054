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
  auto text = to_text_request(request, *model);
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
                                                        .stream = text_.stream});
  sink_ = sink;
  post(model_.backend, execute_atom_v,
       inference_request_ptr{std::make_shared<const inference_request>(text_.request)},
       response_sink_ptr{std::move(sink)});
}

infer_response call::respond(const response_part& part) const {
  infer_response r{.model = model_.name,
                   .version = model_.version,
                   .id = request_.id,
                   .last = part.finish != engine::finish_reason::none};
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

std::vector<infer_response> call::take() {
  std::vector<infer_response> all;
  if (ended_)
    return all;
  for (auto& entry : inbox_->take()) {
    auto& part = entry.part;
    const bool ends = part.finish != engine::finish_reason::none;
    if (!text_.stream) {
      merge(whole_, std::move(part));
      if (ends)
        all.push_back(respond(whole_));
    } else if (ends || part.tokens > 0 || !part.text.empty()) {
      all.push_back(respond(part));
    }
    if (!all.empty() && all.back().last)
      break;
  }
  if (!all.empty() && all.back().last) {
    if (all.back().error)
      abandon();
    ended_ = true;
    presence_.reset();
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
}

} // namespace troupe::actors::kserve
