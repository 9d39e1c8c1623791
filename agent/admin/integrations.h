// Answers about integrations that several resources give.
#pragma once

#include <string>
#include <vector>

#include "agent/admin/context.h"
#include "kafka/preflight.h"

namespace signal_agent::admin {

/// The integration as it is now; 404 when it went meanwhile.
http::Response integration_answer(Context& context, const std::string& id, int status = 200);

/// {"integration","passed","stages"}; `name` null before installing.
Json check_json(const std::vector<kafka::Stage>& stages, const Json& name);

}  // namespace signal_agent::admin
