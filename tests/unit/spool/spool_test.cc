// The spool from outside: what is stored stays, what is settled goes, and the books always balance.
#include "spool/spool.h"

#include "tests/support/spool_fixture.h"

namespace signal_agent::spool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using SpoolTest = SpoolFixture;

TEST_F(SpoolTest, AppendedEventsAreReadBackInOrderWithContiguousNumbers) {
  open();
  auto first = store({"{\"a\":1}", "{\"a\":2}"});
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->stored, 2u);
  EXPECT_EQ(first->first, Seq{1});
  EXPECT_EQ(first->last, Seq{2});
  auto second = store({"{\"a\":3}"});
  EXPECT_EQ(second->first, Seq{3});
  EXPECT_EQ(spool->durable_end(), Seq{3});
  EXPECT_THAT(values_from({1}), ElementsAre("{\"a\":1}", "{\"a\":2}", "{\"a\":3}"));
}

TEST_F(SpoolTest, EverythingAnsweredIsThereAfterACrash) {
  open();
  ASSERT_TRUE(store({"one", "two"}).has_value());
  const CursorId cursor = attach("kafka");
  ASSERT_TRUE(ack_through(cursor, {1}, 1).has_value());
  crash();
  EXPECT_THAT(values_from({1}), ElementsAre("two"));
  auto state = spool->attach("kafka", Start::kEnd);
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->id, cursor);
  EXPECT_EQ(state->mark, Seq{1});
  EXPECT_EQ(state->books.acked, 1u);
  EXPECT_EQ(state->books.pending, 1u);
}

TEST_F(SpoolTest, EverythingAnsweredIsThereAfterAnOrderlyReopen) {
  open();
  ASSERT_TRUE(store({"one", "two"}).has_value());
  reopen();
  EXPECT_THAT(values_from({1}), ElementsAre("one", "two"));
  EXPECT_EQ(store({"three"})->first, Seq{3});
}

TEST_F(SpoolTest, TheSpoolIdStaysTheSame) {
  open();
  const std::string id = spool->stats().spool_id;
  EXPECT_EQ(id.size(), 32u);
  reopen();
  EXPECT_EQ(spool->stats().spool_id, id);
}

TEST_F(SpoolTest, ASecondOpenIsRefusedAndNamesTheProcess) {
  open();
  auto second = Spool::open(options);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kLocked);
  EXPECT_THAT(second.error().message, HasSubstr("process " + std::to_string(getpid())));
}

}  // namespace
}  // namespace signal_agent::spool
