#include "config/integration_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "config/base/atomic_file.h"
#include "config/seal.h"

namespace signal_agent {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Folder {
 public:
  Folder() {
    const char* base = std::getenv("TMPDIR");
    std::string name = std::string(base == nullptr ? "/tmp" : base) + "/store_test.XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  operator const fs::path&() const { return path_; }  // NOLINT: implicit
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

std::string read(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

void write(const fs::path& path, std::string_view text) {
  std::ofstream(path) << text;
}

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

Integration example(const std::string& id = "int_1") {
  Integration integration;
  integration.id = id;
  integration.name = "Confluent " + id;
  integration.catalog = "confluent_cloud";
  integration.origin = Integration::Origin::kApi;
  integration.enabled = false;
  integration.paused = true;
  integration.start_at_oldest = true;
  integration.created_ms = 1'700'000'000'000;
  integration.updated_ms = 1'700'000'000'001;
  integration.config = {{"topic", "datafly-events"},
                        {"linger_ms", std::int64_t{5}},
                        {"consent", std::vector<std::string>{"analytics"}},
                        {"sasl_password", Secret("hunter2")}};
  return integration;
}

std::unique_ptr<IntegrationStore> open_store(const fs::path& folder) {
  Result<std::unique_ptr<IntegrationStore>> store = IntegrationStore::open(folder);
  if (!store) {
    ADD_FAILURE() << store.error().message;
    std::abort();
  }
  return *std::move(store);
}

Error open_error(const fs::path& folder) {
  Result<std::unique_ptr<IntegrationStore>> store = IntegrationStore::open(folder);
  return store ? Error{Code::kInvalid, "it opened"} : store.error();
}

TEST(IntegrationStore, AFreshStateDirectoryHasNoIntegrationsAndIsLeftUntouched) {
  const Folder folder;
  EXPECT_THAT(open_store(folder)->list(), IsEmpty());
  EXPECT_TRUE(fs::is_empty(static_cast<const fs::path&>(folder)))
      << "a command run by another user must not make files the service cannot read";
}

TEST(IntegrationStore, EveryFieldSurvivesAReopen) {
  const Folder folder;
  ASSERT_TRUE(open_store(folder)->put(example()));
  const std::vector<Integration> list = open_store(folder)->list();
  ASSERT_THAT(list, SizeIs(1));
  const Integration& read_back = list[0];
  const Integration written = example();
  EXPECT_EQ(read_back.id, written.id);
  EXPECT_EQ(read_back.name, written.name);
  EXPECT_EQ(read_back.catalog, written.catalog);
  EXPECT_EQ(read_back.variant, written.variant);
  EXPECT_EQ(read_back.delivery_mode, written.delivery_mode);
  EXPECT_EQ(read_back.enabled, written.enabled);
  EXPECT_EQ(read_back.paused, written.paused);
  EXPECT_EQ(read_back.start_at_oldest, written.start_at_oldest);
  EXPECT_EQ(read_back.created_ms, written.created_ms);
  EXPECT_EQ(read_back.updated_ms, written.updated_ms);
  EXPECT_EQ(read_back.config, written.config);
  EXPECT_EQ(read_back.origin, Integration::Origin::kApi);
}

TEST(IntegrationStore, PutReplacesByIdAndKeepsTheOrder) {
  const Folder folder;
  auto store = open_store(folder);
  ASSERT_TRUE(store->put(example("int_1")));
  ASSERT_TRUE(store->put(example("int_2")));
  Integration changed = example("int_1");
  changed.name = "renamed";
  ASSERT_TRUE(store->put(changed));
  const std::vector<Integration> list = open_store(folder)->list();
  ASSERT_THAT(list, SizeIs(2));
  EXPECT_EQ(list[0].name, "renamed");
  EXPECT_EQ(list[1].id, "int_2");
}

TEST(IntegrationStore, ARemovalIsKeptFromItsOrderToItsEnd) {
  const Folder folder;
  auto store = open_store(folder);
  ASSERT_TRUE(store->put(example("int_1")));
  ASSERT_TRUE(store->put(example("int_2")));
  ASSERT_TRUE(store->begin_removal("int_1", 7));
  EXPECT_EQ(store->begin_removal("int_1", 8).error().code, Code::kNotFound);
  EXPECT_THAT(open_store(folder)->list(), SizeIs(1));
  EXPECT_THAT(open_store(folder)->removals(), ElementsAre(std::pair("int_1", 7)));
  ASSERT_TRUE(store->finish_removal("int_1"));
  EXPECT_TRUE(store->finish_removal("int_1")) << "nothing is left to do";
  EXPECT_THAT(open_store(folder)->removals(), IsEmpty());
}

TEST(IntegrationStore, PauseOfFileIntegrationsSurvivesAReopen) {
  const Folder folder;
  auto store = open_store(folder);
  ASSERT_TRUE(store->set_file_integration_paused("int_f", true));
  ASSERT_TRUE(store->set_file_integration_paused("int_g", true));
  ASSERT_TRUE(store->set_file_integration_paused("int_g", false));
  EXPECT_THAT(open_store(folder)->paused_file_integrations(), ElementsAre("int_f"));
}

TEST(IntegrationStore, SecretsAreSealedAndTheFilesAreForTheOwnerOnly) {
  const Folder folder;
  ASSERT_TRUE(open_store(folder)->put(example()));
  EXPECT_THAT(read(folder / "integrations.json"), Not(HasSubstr("hunter2")));
  EXPECT_THAT(read(folder / "integrations.json"), HasSubstr("datafly-events"));
  EXPECT_EQ(mode_of(folder / "integrations.json"), 0600u);
  EXPECT_EQ(mode_of(folder / "seal.key"), 0600u);
}

TEST(IntegrationStore, ALostOrForeignKeyIsCorruptAndSaysWhatToDo) {
  const Folder folder;
  ASSERT_TRUE(open_store(folder)->put(example()));
  write(folder / "seal.key", "another key that is long enough");
  EXPECT_EQ(open_error(folder).code, Code::kCorrupt);
  EXPECT_THAT(open_error(folder).message,
              testing::AllOf(HasSubstr("Confluent int_1"), HasSubstr("seal.key"),
                             Not(HasSubstr("hunter2"))));
  fs::remove(folder / "seal.key");
  EXPECT_EQ(open_error(folder).code, Code::kCorrupt);
  write(folder / "seal.key", "short");
  EXPECT_EQ(open_error(folder).code, Code::kCorrupt);
}

TEST(IntegrationStore, AnyDamagedByteIsNoticed) {
  const Folder folder;
  ASSERT_TRUE(open_store(folder)->put(example()));
  const std::string good = read(folder / "integrations.json");
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write(folder / "integrations.json", bad);
    ASSERT_EQ(open_error(folder).code, Code::kCorrupt) << "byte " << at;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, good.size() - 1}) {
    write(folder / "integrations.json", good.substr(0, size));
    ASSERT_EQ(open_error(folder).code, Code::kCorrupt) << size << " bytes";
  }
}

TEST(IntegrationStore, ASealedSecretCannotBeMovedToAnotherField) {
  const Folder folder;
  SealKeys keys = SealKeys::load(folder, "").value();
  ASSERT_TRUE(keys.ensure(folder));
  const std::string sealed = keys.seal(Secret("hunter2"), "int_1/sasl_password").value();
  EXPECT_EQ(keys.open(sealed, "int_1/sasl_password")->reveal(), "hunter2");
  EXPECT_EQ(keys.open(sealed, "int_2/sasl_password").error().code, Code::kCorrupt);
  EXPECT_NE(keys.seal(Secret("hunter2"), "int_1/sasl_password").value(), sealed)
      << "every seal has a nonce of its own";
}

TEST(SealKeys, SecretsOfAnyLengthOpenAgain) {
  const Folder folder;
  SealKeys keys = SealKeys::load(folder, "").value();
  ASSERT_TRUE(keys.ensure(folder));
  const SealKeys again = SealKeys::load(folder, "").value();
  for (std::size_t size = 0; size < 70; ++size) {
    const Secret secret(std::string(size, 'x'));
    EXPECT_EQ(again.open(keys.seal(secret, "p").value(), "p").value(), secret) << size;
  }
}

TEST(SealKeys, ACredentialSealsFromThenOnAndTheFilesKeyStillOpens) {
  const Folder folder;
  const Folder credentials;
  SealKeys before = SealKeys::load(folder, "").value();
  ASSERT_TRUE(before.ensure(folder));
  const std::string old_seal = before.seal(Secret("old"), "p").value();
  write(credentials / "signal-agent.key", "a credential of enough length");
  SealKeys after = SealKeys::load(folder, credentials).value();
  EXPECT_EQ(after.open(old_seal, "p")->reveal(), "old");
  const std::string new_seal = after.seal(Secret("new"), "p").value();
  EXPECT_EQ(after.open(new_seal, "p")->reveal(), "new");
  EXPECT_FALSE(before.open(new_seal, "p")) << "the credential does not seal";
}

TEST(SealKeys, WithACredentialNoKeyFileIsMade) {
  const Folder folder;
  const Folder credentials;
  write(credentials / "signal-agent.key", "a credential of enough length");
  SealKeys keys = SealKeys::load(folder, credentials).value();
  ASSERT_TRUE(keys.ensure(folder));
  EXPECT_FALSE(fs::exists(folder / "seal.key"));
}

constexpr FileStep kSteps[] = {FileStep::kCreate, FileStep::kWrite, FileStep::kSync,
                               FileStep::kRename, FileStep::kSyncFolder};

TEST(AtomicFile, AFailedStepLeavesTheOldContentAndSaysSo) {
  for (const FileStep failing : kSteps) {
    const Folder folder;
    ASSERT_TRUE(write_file_atomically(folder / "f", "old", 0600));
    const Result<void> written = write_file_atomically(
        folder / "f", "new", 0600, [&](FileStep step) { return step == failing ? ENOSPC : 0; });
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, Code::kDiskFull);
    const bool renamed = failing == FileStep::kSyncFolder;
    EXPECT_EQ(read(folder / "f"), renamed ? "new" : "old") << static_cast<int>(failing);
    EXPECT_TRUE(write_file_atomically(folder / "f", "later", 0600)) << "leftovers do not hinder";
    EXPECT_EQ(read(folder / "f"), "later");
  }
}

// A child writes and dies before each step, without any clean-up of its own.
TEST(AtomicFile, AProcessThatEndsBeforeAnyStepLeavesTheOldOrTheNewContent) {
  for (const FileStep last : kSteps) {
    const Folder folder;
    ASSERT_TRUE(write_file_atomically(folder / "f", "old", 0600));
    const pid_t child = ::fork();
    if (child == 0) {
      const Result<void> written =
          write_file_atomically(folder / "f", "new", 0600, [&](FileStep step) {
            if (step == last) ::_exit(7);
            return 0;
          });
      ::_exit(written ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 7);
    EXPECT_EQ(read(folder / "f"), last == FileStep::kSyncFolder ? "new" : "old");
    EXPECT_TRUE(write_file_atomically(folder / "f", "later", 0600));
    EXPECT_EQ(read(folder / "f"), "later");
  }
}

TEST(AtomicFile, TheStepsComeInTheOrderThatMakesThemSafe) {
  const Folder folder;
  std::vector<FileStep> seen;
  ASSERT_TRUE(write_file_atomically(folder / "f", "x", 0640, [&](FileStep step) {
    seen.push_back(step);
    return 0;
  }));
  EXPECT_THAT(seen, testing::ElementsAreArray(kSteps));
  EXPECT_EQ(mode_of(folder / "f"), 0640u);
}

TEST(IntegrationStore, AFailedWriteChangesNothingInMemory) {
  const Folder folder;
  const fs::path state = folder / "state";
  auto store = open_store(state);
  ASSERT_TRUE(store->put(example("int_1")));
  // A folder where the temporary belongs: it can neither be removed nor replaced by a file.
  fs::create_directories(state / "integrations.json.tmp" / "x");
  EXPECT_FALSE(store->put(example("int_2")));
  EXPECT_FALSE(store->begin_removal("int_1", 7));
  EXPECT_FALSE(store->set_file_integration_paused("int_f", true));
  EXPECT_THAT(store->list(), SizeIs(1));
  EXPECT_THAT(store->paused_file_integrations(), IsEmpty());
  fs::remove_all(state / "integrations.json.tmp");
  EXPECT_TRUE(store->put(example("int_2")));
  EXPECT_THAT(open_store(state)->list(), SizeIs(2));
}

TEST(IntegrationStore, TextThatIsNoUtf8IsRefusedAndNothingChanges) {
  const Folder folder;
  auto store = open_store(folder);
  Integration odd = example();
  odd.name = "\xff";
  EXPECT_EQ(store->put(odd).error().code, Code::kInvalid);
  EXPECT_THAT(store->list(), IsEmpty());
}

TEST(IntegrationStore, ChangesOfManyThreadsAreAllKept) {
  const Folder folder;
  auto store = open_store(folder);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(store->put(example("int_" + std::to_string(t) + "_" + std::to_string(i))));
        (void)store->list();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(open_store(folder)->list(), SizeIs(20));
}

}  // namespace
}  // namespace signal_agent
