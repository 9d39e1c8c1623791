#include "agent/cli/completions.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace signal_agent::cli {

namespace {

/// Every command with its path below the program: "", "dead-letters", "dead-letters list" ...
void walk(const CommandTree& tree, const std::string& path,
          const std::function<void(const std::string&, const CommandTree&)>& visit) {
  visit(path, tree);
  for (const CommandTree& child : tree.children) {
    walk(child, path.empty() ? child.name : path + " " + child.name, visit);
  }
}

std::vector<std::string> option_names(const CommandTree& tree) {
  std::vector<std::string> names;
  for (const CommandTree::Option& option : tree.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return names;
}

/// The program's own options are taken after every command.
std::string words_of(const CommandTree& tree, const CommandTree& root) {
  std::vector<std::string> options = option_names(tree);
  for (std::string& name : option_names(root)) {
    if (std::ranges::find(options, name) == options.end()) options.push_back(std::move(name));
  }
  std::string words;
  for (const CommandTree& child : tree.children) words += " " + child.name;
  for (const std::string& word : tree.words) words += " " + word;
  for (const std::string& name : options) words += " " + name;
  return words.empty() ? words : words.substr(1);
}

/// The names of all options of that kind, once each, `between` them.
std::string options_where(const CommandTree& root, bool CommandTree::Option::*kind,
                          std::string_view between) {
  std::vector<std::string> names;
  walk(root, "", [&](const std::string&, const CommandTree& tree) {
    for (const CommandTree::Option& option : tree.options)
      if (option.*kind) names.insert(names.end(), option.names.begin(), option.names.end());
  });
  std::ranges::sort(names);
  const auto doubled = std::ranges::unique(names);
  names.erase(doubled.begin(), doubled.end());
  std::string joined;
  for (const std::string& name : names)
    joined.append(joined.empty() ? std::string_view() : between).append(name);
  return joined;
}

/// bash; zsh reads the same through bashcompinit.
std::string bash_script(const CommandTree& root) {
  std::string cases;
  std::string commands;
  walk(root, "", [&](const std::string& path, const CommandTree& tree) {
    cases += "    \"" + path + "\")\n      words=\"" + words_of(tree, root) + "\"\n" +
             (tree.takes_files ? "      files=1\n" : "") + "      ;;\n";
    if (!path.empty()) commands += " \"" + path + "\"";
  });
  return "# bash completion for signal-agent; made by `signal-agent completions bash`\n"
         "_signal_agent() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
         "  local command=\"\" candidate word i words=\"\" files=\"\"\n"
         "  local commands=(" +
         commands.substr(commands.empty() ? 0 : 1) +
         ")\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=${COMP_WORDS[i]}\n"
         "    case $word in\n"
         "      " +
         options_where(root, &CommandTree::Option::takes_value, "|") +
         ")\n"
         "        [[ ${COMP_WORDS[i+1]} == '=' ]] && ((i++))\n"
         "        ((i++))  # its value is no command\n"
         "        continue\n"
         "        ;;\n"
         "    esac\n"
         "    for candidate in \"${commands[@]}\"; do\n"
         "      [[ $candidate == \"${command:+$command }$word\" ]] && command=$candidate && break\n"
         "    done\n"
         "  done\n"
         "  case $previous in\n"
         "    " +
         options_where(root, &CommandTree::Option::takes_file, "|") +
         ")\n"
         "      COMPREPLY=($(compgen -f -- \"$current\"))\n"
         "      return\n"
         "      ;;\n"
         "  esac\n"
         "  case $command in\n" +
         cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  [[ -n $files ]] && COMPREPLY+=($(compgen -f -- \"$current\"))\n"
         "}\n"
         "complete -o filenames -F _signal_agent signal-agent\n";
}

std::string zsh_script(const CommandTree& root) {
  return "#compdef signal-agent\n"
         "# zsh completion for signal-agent; made by `signal-agent completions zsh`\n"
         "autoload -U +X bashcompinit && bashcompinit\n" +
         bash_script(root);
}

std::string fish_quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

std::string fish_option(const CommandTree::Option& option) {
  std::string text;
  for (const std::string& name : option.names) {
    text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  }
  if (option.takes_file) {
    text += " -r -F";
  } else if (option.takes_value) {
    text += " -x";
  }
  return text + " -d " + fish_quoted(option.description);
}

std::string fish_script(const CommandTree& root) {
  std::string script =
      "# fish completion for signal-agent; made by `signal-agent completions fish`\n"
      "function __signal_agent_words\n"
      "  set -l is_value false\n"
      "  for word in (commandline -opc)[2..-1]\n"
      "    if $is_value\n"
      "      set is_value false\n"
      "      continue\n"
      "    end\n"
      "    switch $word\n"
      "      case " +
      options_where(root, &CommandTree::Option::takes_value, " ") +
      "\n"
      "        set is_value true\n"
      "      case '-*'\n"
      "      case '*'\n"
      "        echo $word\n"
      "    end\n"
      "  end\n"
      "end\n"
      "function __signal_agent_at\n"
      "  set -l words (__signal_agent_words)\n"
      "  test \"$words\" = \"$argv\"\n"
      "end\n"
      "function __signal_agent_under\n"
      "  set -l words (__signal_agent_words)\n"
      "  string match -q -- \"$argv*\" \"$words\"\n"
      "end\n"
      "complete -c signal-agent -f\n";
  walk(root, "", [&](const std::string& path, const CommandTree& tree) {
    const std::string at =
        "complete -c signal-agent -n " + fish_quoted("__signal_agent_at " + path);
    const std::string under =
        "complete -c signal-agent -n " + fish_quoted("__signal_agent_under " + path);
    for (const CommandTree& child : tree.children) {
      script += at + " -a " + child.name + " -d " + fish_quoted(child.description) + "\n";
    }
    for (const std::string& word : tree.words) script += at + " -a " + word + "\n";
    for (const CommandTree::Option& option : tree.options) {
      script += under + fish_option(option) + "\n";
    }
    if (tree.takes_files) script += under + " -F\n";
  });
  return script;
}

}  // namespace

std::string completion_script(const CommandTree& tree, std::string_view shell) {
  if (shell == "bash") return bash_script(tree);
  if (shell == "zsh") return zsh_script(tree);
  if (shell == "fish") return fish_script(tree);
  return "";
}

}  // namespace signal_agent::cli
