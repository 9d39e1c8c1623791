// Holds JSON against the part of JSON Schema that openapi.json uses. An unknown keyword is a fault,
// so that the description cannot say more than is checked.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace signal_agent::admin {

/// The embedded description, parsed.
const nlohmann::json& openapi();

/// What is wrong with `value`, with its place; empty when it fits.
std::vector<std::string> faults_against(const nlohmann::json& schema, const nlohmann::json& value,
                                        const std::string& place = "$");

/// The path templates that fit this path, those with the fewest parameters first.
std::vector<std::string> described_paths(const std::string& path);

/// What is wrong with this answer against the description; empty when nothing.
std::vector<std::string> faults_of_answer(const std::string& method, const std::string& path,
                                          int status, const std::string& content_type,
                                          const std::string& body);

}  // namespace signal_agent::admin
