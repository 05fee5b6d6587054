#include "actors/kv_manager/kv_manager.hpp"

namespace troupe::actors {

kv_manager_actor::behavior_type
kv_manager(kv_manager_actor::stateful_pointer<kv_manager_state> self, std::uint32_t num_blocks,
           std::uint32_t block_size) {
  state(self).pool.emplace(num_blocks, block_size);
  return {
      [self](const engine::kv_admit& admit) { return state(self).pool->admit(admit); },
      [self](const engine::kv_want& want) { return state(self).pool->want(want); },
      [self](const engine::kv_commit& commit) { state(self).pool->commit(commit); },
      [self](const engine::kv_release& release) { state(self).pool->release(release); },
      [self](status_atom) {
        const auto stats = state(self).pool->stats();
        return kv_report{
            .free_blocks = stats.free, .total_blocks = stats.total, .mailbox = mailbox_depth(self)};
      },
  };
}

} // namespace troupe::actors
