#include "agent/cli/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <utility>

namespace signal_agent::cli {

void Terminal::complain(std::string_view message) {
  err << "signal-agent: " << message << "\n";
}

std::string Terminal::paint(std::string_view colour_name, std::string_view text) const {
  static constexpr std::array<std::pair<std::string_view, const char*>, 5> kCodes{
      {{"bold", "1"}, {"dim", "2"}, {"red", "31"}, {"green", "32"}, {"yellow", "33"}}};
  if (!colour) return std::string(text);
  for (const auto& [name, code] : kCodes) {
    if (name == colour_name)
      return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
  }
  return std::string(text);
}

bool Terminal::confirm(const std::string& what, std::string_view without_asking) {
  std::string answer;
  if (in_is_terminal && err_is_terminal) {
    err << "Really " << what << "? [y/N] " << std::flush;
    std::getline(in, answer);
  }
  if (answer == "y" || answer == "Y" || answer == "yes") return true;
  complain("not done: this would " + what + "; " + std::string(without_asking) +
           " does it without asking");
  return false;
}

Terminal process_terminal() {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* kind = std::getenv("TERM");
  Terminal terminal{std::cin, std::cout, std::cerr};
  terminal.in_is_terminal = ::isatty(STDIN_FILENO) == 1;
  terminal.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  terminal.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  terminal.colour = terminal.out_is_terminal && (no_colour == nullptr || *no_colour == '\0') &&
                    kind != nullptr && std::string_view(kind) != "dumb";
  return terminal;
}

std::string printable(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      safe += c;
      continue;
    }
    std::array<char, 8> escaped{};
    std::snprintf(escaped.data(), escaped.size(), "\\x%02x", byte);
    safe += escaped.data();
  }
  return safe;
}

namespace {

/// Columns a UTF-8 text takes, counting code points.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789,.") == std::string_view::npos;
}

}  // namespace

Table::Table(std::vector<std::string> header) : header_(std::move(header)) {}

void Table::add(std::vector<std::string> row) {
  for (std::string& cell : row) cell = printable(cell);
  rows_.push_back(std::move(row));
}

void Table::print(Terminal& terminal) const {
  std::vector<std::size_t> widths;
  std::vector<bool> to_the_right(header_.size(), !rows_.empty());
  for (std::size_t i = 0; i < header_.size(); ++i) {
    widths.push_back(width_of(header_[i]));
    for (const auto& row : rows_) {
      widths[i] = std::max(widths[i], width_of(row[i]));
      to_the_right[i] = to_the_right[i] && (is_number(row[i]) || row[i] == "-");
    }
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string padding(widths[i] - width_of(cells[i]), ' ');
      if (i > 0) text += "  ";
      text += to_the_right[i] ? padding + cells[i] : cells[i] + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  terminal.out << terminal.paint("bold", line(header_)) << "\n";
  for (const auto& row : rows_) terminal.out << line(row) << "\n";
}

}  // namespace signal_agent::cli
