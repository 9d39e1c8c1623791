// What a client sends to install or change an integration, as an Integration. Pure; every fault at
// once.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent/admin/context.h"
#include "config/integration.h"

namespace signal_agent::admin {

struct RequestedIntegration {
  Integration integration;
  std::vector<Fault> faults;  // empty: the integration is valid
};

/// The body of an install. `needs_name` false: only its config counts (a check before installing).
RequestedIntegration read_install(const CatalogEntry& entry, const Json& body,
                                  bool needs_name = true);

/// The body of a PATCH merged into what is stored: null removes a field, *** keeps a secret.
RequestedIntegration read_patch(const CatalogEntry& entry, const Integration& stored,
                                const Json& body);

/// Per field {old,new}, secrets as *** on both sides.
Json config_changes(const ConfigMap& before, const ConfigMap& after);

}  // namespace signal_agent::admin
