#include "troupe/actors/messages.hpp"

#include "actors/protocol.hpp"

namespace troupe::actors {

void add_messages(caf::actor_system_config& config) {
  config.add_message_types<caf::id_block::troupe_api>();
  config.add_message_types<caf::id_block::troupe_core>();
}

} // namespace troupe::actors
