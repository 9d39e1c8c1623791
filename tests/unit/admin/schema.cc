#include "tests/unit/admin/schema.h"

#include <algorithm>
#include <set>

#include "agent/admin/assets.h"
#include "agent/shown.h"

namespace signal_agent::admin {

using nlohmann::json;

const json& openapi() {
  static const json description = json::parse(openapi_document());
  return description;
}

namespace {

const json& follow(const json& schema) {
  if (!schema.contains("$ref")) return schema;
  const std::string reference = schema["$ref"];
  return follow(openapi().at(json::json_pointer(reference.substr(1))));
}

bool is_of_type(const std::string& type, const json& value) {
  if (type == "null") return value.is_null();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  return false;
}

bool fits_type(const json& types, const json& value) {
  if (types.is_string()) return is_of_type(types, value);
  return std::any_of(types.begin(), types.end(),
                     [&](const json& type) { return is_of_type(type, value); });
}

void object_faults(const json& schema, const json& value, const std::string& place,
                   std::vector<std::string>& faults) {
  const json properties = schema.value("properties", json::object());
  for (const json& name : schema.value("required", json::array())) {
    if (!value.contains(name)) faults.push_back(place + " lacks " + name.get<std::string>());
  }
  for (const auto& [name, member] : value.items()) {
    const std::string at = place + "." + name;
    std::vector<std::string> found;
    if (properties.contains(name)) {
      found = faults_against(properties[name], member, at);
    } else if (schema.contains("additionalProperties")) {
      const json& others = schema["additionalProperties"];
      if (others.is_object()) found = faults_against(others, member, at);
      if (others == false) found = {at + " is not described"};
    }
    faults.insert(faults.end(), found.begin(), found.end());
  }
}

}  // namespace

std::vector<std::string> faults_against(const json& given, const json& value,
                                        const std::string& place) {
  static const std::set<std::string> kKnown{
      "type",        "properties", "required", "additionalProperties",
      "items",       "enum",       "const",    "oneOf",
      "description", "examples",   "format",   "default",
      "minimum",     "maximum"};
  const json& schema = follow(given);
  std::vector<std::string> faults;
  for (const auto& [keyword, unused] : schema.items()) {
    if (!kKnown.contains(keyword)) faults.push_back("the test does not know " + keyword);
  }
  if (schema.contains("oneOf")) {
    std::vector<std::string> all;
    for (const json& choice : schema["oneOf"]) {
      const auto found = faults_against(choice, value, place);
      if (found.empty()) return faults;
      all.insert(all.end(), found.begin(), found.end());
    }
    faults.insert(faults.end(), all.begin(), all.end());
  }
  if (schema.contains("type") && !fits_type(schema["type"], value)) {
    faults.push_back(place + " is " + value.dump() + ", not " + schema["type"].dump());
    return faults;
  }
  if (schema.contains("const") && schema["const"] != value) {
    faults.push_back(place + " is " + value.dump());
  }
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    faults.push_back(place + " is " + value.dump() + ", not one of " + schema["enum"].dump());
  }
  if (schema.value("format", "") == "date-time" && value.is_string() &&
      !parse_rfc3339(value.get<std::string>())) {
    faults.push_back(place + " is no RFC 3339 time: " + value.dump());
  }
  if (value.is_object()) object_faults(schema, value, place, faults);
  if (value.is_array() && schema.contains("items")) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      const auto found =
          faults_against(schema["items"], value[i], place + "[" + std::to_string(i) + "]");
      faults.insert(faults.end(), found.begin(), found.end());
    }
  }
  return faults;
}

namespace {

std::vector<std::string> segments_of(const std::string& path) {
  std::vector<std::string> segments;
  std::size_t begin = 1;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    segments.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return segments;
}

}  // namespace

std::vector<std::string> described_paths(const std::string& path) {
  const auto wanted = segments_of(path);
  std::vector<std::string> fitting;
  for (const auto& [known, operations] : openapi()["paths"].items()) {
    const auto segments = segments_of(known);
    if (segments.size() != wanted.size()) continue;
    if (std::equal(segments.begin(), segments.end(), wanted.begin(),
                   [](const auto& segment, const auto& word) {
                     return segment == word || segment[0] == '{';
                   })) {
      fitting.push_back(known);
    }
  }
  const auto parameters = [](const std::string& known) {
    return std::count(known.begin(), known.end(), '{');
  };
  std::stable_sort(fitting.begin(), fitting.end(),
                   [&](const auto& a, const auto& b) { return parameters(a) < parameters(b); });
  return fitting;
}

std::vector<std::string> faults_of_answer(const std::string& method, const std::string& path,
                                          int status, const std::string& content_type,
                                          const std::string& body) {
  std::string lower = method;
  std::transform(lower.begin(), lower.end(), lower.begin(), ::tolower);
  const auto paths = described_paths(path);
  const auto described = std::find_if(paths.begin(), paths.end(), [&](const std::string& known) {
    return openapi()["paths"][known].contains(lower);
  });
  if (described == paths.end()) return {method + " " + path + " is not described"};
  const std::string& known = *described;
  const json& operations = openapi()["paths"][known];
  const json& responses = operations[lower]["responses"];
  const std::string code = std::to_string(status);
  if (!responses.contains(code)) return {method + " " + known + " does not describe " + code};
  const json& response = follow(responses[code]);
  if (!response.contains("content")) {
    return body.empty() ? std::vector<std::string>{}
                        : std::vector<std::string>{"a body where none is described: " + body};
  }
  const std::string plain = content_type.substr(0, content_type.find(';'));
  if (!response["content"].contains(plain)) return {plain + " is not described for " + code};
  if (plain != "application/json") return {};
  return faults_against(response["content"][plain]["schema"], json::parse(body));
}

}  // namespace signal_agent::admin
