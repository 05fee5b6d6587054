#include "troupe/actors/messages.hpp"

#include "actors/membership/messages.hpp"
#include "actors/protocol.hpp"

namespace troupe::actors {

void add_messages(caf::actor_system_config& config) {
  config.add_message_types<caf::id_block::troupe_api>();
  config.add_message_types<caf::id_block::troupe_core>();
  config.add_message_types<caf::id_block::troupe_member>();
  // Tokens and cancels have no answer, are bounded by the requests that were taken, and a lost one
  // leaves a stream without its end: on the wire they wait where others would be dropped.
  set_option(config, "wire.full-queue", "keep");
}

} // namespace troupe::actors
