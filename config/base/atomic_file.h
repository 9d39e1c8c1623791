// write_file_atomically: a small file that is either the old one or the new one, whatever happens.
//
//   temporary beside it -> write -> fsync -> rename over it -> fsync the folder
//
// One writer per path: the temporary has a fixed name, so that crashes leave no litter behind.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string_view>

#include "config/base/result.h"

namespace signal_agent {

enum class FileStep { kCreate, kWrite, kSync, kRename, kSyncFolder };

/// Called before each step; a number other than 0 is taken for that step's errno. For tests, which
/// fail or end the process there.
using BeforeFileStep = std::function<int(FileStep)>;

/// Durable when it succeeds. After an error the file is the old one; only when the last step failed
/// it may be the new one.
Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view bytes,
                                   mode_t mode, const BeforeFileStep& before = {});

}  // namespace signal_agent
