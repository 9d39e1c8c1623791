// Completions: the option tree as a completion script for bash, zsh or fish. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::cli {

struct CommandTree {
  struct Option {
    std::vector<std::string> names;  // --config, -c
    std::string description;
    bool takes_value = false;
    bool takes_file = false;
  };
  std::string name;
  std::string description;
  std::vector<Option> options;
  std::vector<CommandTree> children;
  std::vector<std::string> words;  // fixed choices of its first argument
  bool takes_files = false;        // as arguments
};

/// `shell`: bash, zsh or fish; empty for another.
std::string completion_script(const CommandTree& tree, std::string_view shell);

}  // namespace signal_agent::cli
