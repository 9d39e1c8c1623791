#include "agent/ingest/gunzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "config/base/check.h"

namespace signal_agent::ingest {
namespace {

constexpr int kGzipOnly = 16 + MAX_WBITS;

struct Inflater {
  z_stream stream{};
  bool ready = false;
  Inflater() { ready = inflateInit2(&stream, kGzipOnly) == Z_OK; }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

}  // namespace

Result<std::string> gunzip(std::string_view data, std::uint64_t max_bytes, std::size_t slack,
                           const std::function<bool(std::uint64_t)>& may_hold) {
  CHECK(data.size() < std::numeric_limits<uInt>::max());
  const Error damaged{Code::kInvalid, "the gzip data is damaged or cut short"};
  const Error too_large{Code::kTooLarge,
                        "the body inflates to more than " + std::to_string(max_bytes) + " bytes"};
  const Error no_room{Code::kOverloaded, "no memory to inflate the body now"};
  if (data.empty()) return damaged;

  Inflater inflater;
  if (!inflater.ready) return no_room;
  z_stream& stream = inflater.stream;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());

  std::string out;
  std::size_t filled = 0;
  while (true) {
    if (filled == out.size()) {
      // One byte beyond the cap is room enough to see that the cap is passed.
      const std::uint64_t wanted = std::min<std::uint64_t>(
          max_bytes + 1, std::max<std::uint64_t>({4096, data.size() * 4, out.size() * 2}));
      if (wanted == out.size()) return too_large;
      if (!may_hold(wanted)) return no_room;
      out.reserve(wanted + slack);
      out.resize(wanted);
    }
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + filled);
    stream.avail_out = static_cast<uInt>(out.size() - filled);
    const int state = inflate(&stream, Z_NO_FLUSH);
    filled = out.size() - stream.avail_out;
    if (filled > max_bytes) return too_large;
    if (state == Z_STREAM_END) {
      if (stream.avail_in == 0) break;
      if (inflateReset(&stream) != Z_OK) return damaged;  // the next member
    } else if (state == Z_MEM_ERROR) {
      return no_room;
    } else if (state != Z_OK && state != Z_BUF_ERROR) {
      return damaged;
    } else if (stream.avail_in == 0 && stream.avail_out > 0) {
      return damaged;
    }
  }
  out.resize(filled);
  return out;
}

}  // namespace signal_agent::ingest
