// The part of the driver that moves frames.
#include "transport/ucx/driver.hpp"

#include "troupe/base/log.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace troupe::net::ucx {

/// A frame whose payload is on its way into `buffer`, where the pool's alignment is; its meta bytes
/// lie behind it.
struct driver::receive_op {
  driver& self;
  endpoint_ref over;
  frame_header header;
  pooled_buffer buffer = {};

  void take_buffer(std::span<const std::byte> meta) {
    const std::size_t bytes = header.payload_bytes;
    if (meta.size() + bytes == 0)
      return;
    buffer = self.pool_.take(meta.size() + bytes);
    std::copy(meta.begin(), meta.end(), buffer.bytes().subspan(bytes).begin());
  }
};

sending driver::transmit(link_id link, outgoing_frame frame) {
  const auto found = links_.find(link);
  if (found == links_.end() || found->second->has_failed())
    return sending::pending; // The mesh is about to hear that the link broke.
  auto& over = found->second;
  auto op = spare_ != nullptr ? std::move(spare_)
                              : std::make_unique<send_op>(send_op{*this, nullptr, {}});
  op->over = over;
  op->frame = std::move(frame);
  ucp_request_param_t how{};
  how.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  how.cb.send = on_sent;
  how.user_data = op.get();
  // A hello says by which endpoint it came; every later frame has a token.
  how.flags = op->frame.header.op == opcode::hello ? UCP_AM_SEND_FLAG_REPLY : 0;
  const auto& out = op->frame;
  // Below this UCX's rendezvous over tcp costs more than the copies that it saves.
  constexpr std::size_t tcp_eager_bytes_max = std::size_t{128} << 10;
  if (over->tcp_alone && out.payload.size() <= tcp_eager_bytes_max)
    how.flags |= UCP_AM_SEND_FLAG_EAGER;
  auto* const made = ucp_am_send_nbx(over->handle(), frames_id, out.head.data(), out.head.size(),
                                     out.payload.data(), out.payload.size(), &how);
  if (made == nullptr) {
    op->over = nullptr;
    op->frame = {};
    spare_ = std::move(op);
    return sending::done;
  }
  if (UCS_PTR_IS_ERR(made)) {
    broke(link, to_error(UCS_PTR_STATUS(made), errc::peer_down, "a frame was not sent"));
    return sending::pending;
  }
  ++over->sends;
  ++sends_open_;
  static_cast<void>(op.release());
  return sending::pending;
}

void driver::on_sent(void* request, ucs_status_t status, void* op) {
  const std::unique_ptr<send_op> owner{static_cast<send_op*>(op)};
  owner->self.sent(*owner, status);
  ucp_request_free(request);
}

void driver::sent(send_op& op, ucs_status_t status) {
  auto& over = *op.over;
  --over.sends;
  --sends_open_;
  const auto queued_bytes = op.frame.queued_bytes;
  if (status != UCS_OK && over.suspect && !op.frame.payload.empty())
    quarantine_.push_back({over.peer, std::move(op.frame)});
  if (status != UCS_OK)
    return broke(over.link(), to_error(status, errc::peer_down, "a frame was not sent"));
  if (links_.contains(over.link()))
    mesh_->frame_sent(over.link(), queued_bytes, now_);
}

ucs_status_t driver::take(std::span<const std::byte> head, void* data, std::size_t bytes,
                          const ucp_am_recv_param_t& how) {
  std::optional<link_id> from;
  if ((how.recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0) {
    const auto found = handles_.find(how.reply_ep);
    if (found != handles_.end())
      from = found->second->link();
  }
  const auto header = decode_header(head, bytes);
  if (!header) {
    ++malformed_;
    if (from)
      broke(*from, header.error());
    else
      log_warn("a frame of an unknown link is dropped: {}", header.error().note);
    return UCS_OK;
  }
  const auto link = mesh_->admit(*header, from, now_);
  const auto over = link ? find(*link) : nullptr;
  if (over == nullptr)
    return UCS_OK;
  const auto meta = head.subspan(frame_header_bytes);
  if ((how.recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    waiting_payload waits{*header, {meta.begin(), meta.end()}, data};
    if (over->copies)
      waiting_[*link].push_back(std::move(waits));
    else
      fetch(over, waits);
    return UCS_INPROGRESS;
  }
  receive_op op{*this, over, *header};
  op.take_buffer(meta);
  if (bytes > 0)
    std::memcpy(op.buffer.bytes().data(), data, bytes);
  received(op);
  return UCS_OK;
}

/// Has UCX bring a payload that waits at its sender.
void driver::fetch(const endpoint_ref& over, const waiting_payload& what) {
  auto op = std::make_unique<receive_op>(receive_op{*this, over, what.header});
  op->take_buffer(what.meta);
  ucp_request_param_t how{};
  how.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  how.cb.recv_am = on_received;
  how.user_data = op.get();
  auto* const to = op->buffer.bytes().data();
  auto* const made =
      ucp_am_recv_data_nbx(worker_.get(), what.data, to, what.header.payload_bytes, &how);
  if (UCS_PTR_IS_ERR(made))
    return broke(over->link(),
                 to_error(UCS_PTR_STATUS(made), errc::peer_down, "a payload did not come"));
  if (made == nullptr)
    return received(*op);
  ++over->receives;
  static_cast<void>(op.release());
}

/// Over links whose payloads this thread copies itself one is fetched after the other, into a
/// buffer that is still in the cache when the one before it was handed on and let go.
void driver::fetch_next() {
  lines_.clear();
  for (const auto& [link, line] : waiting_)
    lines_.push_back(link);
  for (const auto link : lines_) {
    // What arrives may end its link, and the line with it.
    for (auto over = find(link); over != nullptr && over->receives == 0 && bytes_in_ < turn_bytes;
         over = find(link)) {
      auto& line = waiting_[link];
      if (line.empty() || over->has_failed())
        break;
      const auto next = std::move(line.front());
      line.pop_front();
      fetch(over, next);
    }
  }
}

/// Gives up what waits on a link that ends.
void driver::drop_waiting(link_id link) {
  const auto line = waiting_.extract(link);
  if (line.empty())
    return;
  for (const auto& what : line.mapped())
    ucp_am_data_release(worker_.get(), what.data);
}

void driver::on_received(void* request, ucs_status_t status, std::size_t, void* op) {
  const std::unique_ptr<receive_op> owner{static_cast<receive_op*>(op)};
  --owner->over->receives;
  auto& self = owner->self;
  if (status == UCS_OK)
    self.received(*owner);
  else
    self.broke(owner->over->link(), to_error(status, errc::peer_down, "a payload did not come"));
  ucp_request_free(request);
}

void driver::received(receive_op& op) {
  incoming_frame in;
  in.header = op.header;
  bytes_in_ += op.buffer.bytes().size();
  if (const auto size = op.buffer.bytes().size(); size > 0) {
    const std::size_t payload = size - op.header.meta_bytes;
    const auto all = std::move(op.buffer).share(mesh_->meter_of(op.over->link()));
    in.meta = all.slice(payload, size - payload);
    in.payload = payload > 0 ? all.slice(0, payload) : shared_bytes{};
  }
  mesh_->frame_arrived(op.over->link(), std::move(in), now_);
}

} // namespace troupe::net::ucx
