// The plain main of a fuzz target: runs every file of the folders named, and each file cut and
// flipped a little in reproducible ways. With clang the same target links libFuzzer instead.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::uint64_t runs = 0;

void run(const std::string& input) {
  // A copy of exactly that size, so that a sanitizer sees a read beyond it.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  ++runs;
}

void run_with_neighbours(const std::string& input) {
  run(input);
  const std::size_t step = input.size() / 256 + 1;
  for (std::size_t size = 0; size < input.size(); size += step) run(input.substr(0, size));
  std::uint64_t state = 0x9e3779b97f4a7c15ULL ^ input.size();
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  for (int i = 0; i < 256 && !input.empty(); ++i) {
    std::string changed = input;
    const std::size_t at = next() % changed.size();
    switch (next() % 4) {
      case 0:
        changed[at] = static_cast<char>(next());
        break;
      case 1:
        changed.erase(at, 1 + next() % 4);
        break;
      case 2:
        changed.insert(at, 1, static_cast<char>(next()));
        break;
      default:
        changed.insert(at, input.substr(next() % input.size(), next() % 64));
        break;
    }
    run(changed);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      run_with_neighbours(std::string(std::istreambuf_iterator<char>(file), {}));
    }
  }
  std::printf("%llu inputs\n", static_cast<unsigned long long>(runs));
  return runs > 0 ? 0 : 1;  // a corpus that is not there proves nothing
}
