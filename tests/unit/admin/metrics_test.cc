#include "agent/admin/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "tests/unit/admin/fixture.h"

namespace signal_agent::admin {
namespace {

using ::testing::HasSubstr;

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() {
    agent.now.integrations = {some_integration("Confluent Cloud", Integration::Origin::kFile),
                              some_integration("odd \"name\\", Integration::Origin::kApi)};
    IntegrationView& view = agent.now.integrations.front();
    view.cursor->books = {.stored = 100,
                          .acked = 60,
                          .filtered = 5,
                          .discarded = 4,
                          .damaged = 1,
                          .buried = 10,
                          .pending = 20};
    view.cursor->oldest_pending_ms = agent.now.now_ms - 2'500;
    view.delivery->failed_by_code = {{"MESSAGE_TOO_LARGE", 10}};
    view.delivery->buried_by_reason = {{"size", 10}};
    view.delivery->rebuilds_by_reason = {{"fatal", 1}};
    view.delivery->failure = forward::CurrentFailure{"CONNECTION_FAILED", "refused", 1};
    agent.now.intake.rejected_by_code = {{"INVALID_EVENT", 3}};
    agent.now.intake.refused_by_code = {{"SPOOL_FULL", 2}};
  }
  std::string render(Exposition exposition = Exposition::kPrometheus) {
    return render_metrics(agent.now, agent.settings_in_use, read_process_stats(), exposition);
  }

  FakeAgent agent;
};

TEST_F(MetricsTest, TheBooksAreThereByIntegrationAndBalance) {
  const std::string text = render();
  for (const char* line :
       {"signal_agent_events_stored_total{integration=\"Confluent Cloud\"} 100\n",
        "signal_agent_events_acked_total{integration=\"Confluent Cloud\"} 60\n",
        "signal_agent_events_filtered_total{integration=\"Confluent Cloud\"} 5\n",
        "signal_agent_spool_dropped_events_total 0\n",
        "signal_agent_events_discarded_total{integration=\"Confluent Cloud\"} 4\n",
        "signal_agent_events_damaged_total{integration=\"Confluent Cloud\"} 1\n",
        "signal_agent_events_buried{integration=\"Confluent Cloud\"} 10\n",
        "signal_agent_events_pending{integration=\"Confluent Cloud\"} 20\n",
        "signal_agent_balance_difference{integration=\"Confluent Cloud\"} 0\n",
        "signal_agent_oldest_pending_age_seconds{integration=\"Confluent "
        "Cloud\"} 2.5\n",
        "signal_agent_producer_rebuilds_total{integration=\"Confluent "
        "Cloud\",reason=\"fatal\"} 1\n",
        "signal_agent_events_late_total{integration=\"Confluent Cloud\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(MetricsTest, LabelValuesAreEscaped) {
  EXPECT_THAT(render(), HasSubstr("{integration=\"odd \\\"name\\\\\"}"));
}

TEST_F(MetricsTest, OneStateIsOneTheOthersZero) {
  std::istringstream lines(render());
  int ones = 0;
  int all = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("signal_agent_delivery_state{integration=\"Confluent Cloud\"")) continue;
    ++all;
    if (line.ends_with(" 1")) {
      ++ones;
      EXPECT_THAT(line, HasSubstr("state=\"running\""));
    }
  }
  EXPECT_EQ(ones, 1);
  EXPECT_EQ(all, 11);
}

TEST_F(MetricsTest, EveryFamilyIsAnnouncedOnceBeforeItsSamples) {
  for (const Exposition exposition : {Exposition::kPrometheus, Exposition::kOpenMetrics}) {
    std::istringstream lines(render(exposition));
    std::set<std::string> families;
    std::string current;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("# TYPE ")) {
        current = line.substr(7, line.find(' ', 7) - 7);
        EXPECT_TRUE(families.insert(current).second) << current;
      } else if (!line.starts_with("#")) {
        EXPECT_TRUE(line.starts_with(current)) << line;
      }
    }
    EXPECT_GT(families.size(), 50U);
  }
}

TEST_F(MetricsTest, HistogramsCountEveryValueAndRise) {
  Histogram histogram;
  for (const std::uint64_t us : {1ULL, 200ULL, 5'000ULL, 90'000'000'000ULL}) histogram.record(us);
  agent.now.spool->commit_us = histogram.snapshot();
  const std::string text = render();
  EXPECT_THAT(text, HasSubstr("signal_agent_commit_duration_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("signal_agent_commit_duration_seconds_bucket{le=\"0.000256\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("signal_agent_commit_duration_seconds_count 4\n"));
}

TEST_F(MetricsTest, OpenMetricsWhenAskedAndOnlyThen) {
  EXPECT_EQ(exposition_for("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
            Exposition::kOpenMetrics);
  EXPECT_EQ(exposition_for("text/plain"), Exposition::kPrometheus);
  EXPECT_EQ(exposition_for(""), Exposition::kPrometheus);
  EXPECT_TRUE(render(Exposition::kOpenMetrics).ends_with("# EOF\n"));
  EXPECT_THAT(render(Exposition::kOpenMetrics),
              HasSubstr("# TYPE signal_agent_events_acked counter\n"));
}

TEST_F(MetricsTest, NothingSecretIsInIt) {
  EXPECT_EQ(render().find(kPassword), std::string::npos);
}

TEST_F(MetricsTest, WithoutASpoolItStillAnswers) {
  agent.now.spool.reset();
  agent.now.spool_state = "failed";
  EXPECT_THAT(render(), HasSubstr("signal_agent_spool_state{state=\"failed\"} 1\n"));
  EXPECT_THAT(render(), HasSubstr("signal_agent_intake_open 0\n"));
}

TEST_F(MetricsTest, PromtoolHasNothingToSay) {
  ASSERT_EQ(std::system("command -v promtool >/dev/null"), 0)
      << "promtool is part of Debian's prometheus package";
  const TempDir dir;
  const auto file = dir.path() / "metrics";
  std::ofstream(file) << render();
  const std::string command = "promtool check metrics < " + file.string() + " 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char part[512];
  while (std::fgets(part, sizeof part, pipe) != nullptr) said += part;
  EXPECT_EQ(::pclose(pipe), 0) << said;
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace signal_agent::admin
