// Terminal: where a command reads and writes, and what that place can show. Data go to `out`,
// everything else to `err`. A test gives string streams.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace signal_agent::cli {

struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool colour = false;  // of out; off under NO_COLOR, TERM=dumb, --no-color

  /// "signal-agent: message" on err.
  void complain(std::string_view message);
  /// The text in that colour, when colour is on: "green", "yellow", "red", "bold", "dim".
  std::string paint(std::string_view colour_name, std::string_view text) const;
  /// Asks on a terminal whether to do `what`; without one, or on a no, says on err that nothing was
  /// done and that `without_asking` would do it.
  bool confirm(const std::string& what, std::string_view without_asking);
};

/// The process's own streams.
Terminal process_terminal();

/// Control characters as \xNN, so that nothing from an event or a broker moves the cursor.
std::string printable(std::string_view text);

/// Aligned columns with a header; cells are made printable. Numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void add(std::vector<std::string> row);
  bool empty() const { return rows_.empty(); }
  void print(Terminal& terminal) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace signal_agent::cli
