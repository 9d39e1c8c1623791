// What a public listener refuses: each line of the table of guards around Beast's parser.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "agent/http/request_parser.h"

namespace signal_agent::http {
namespace {

constexpr std::uint64_t kMaxHeader = 32 * 1024;

/// The status with which a whole input is refused; 0 when it is taken, -1 when more is awaited.
int refused(std::string_view input, std::uint64_t max_body = 1024 * 1024) {
  RequestParser parser(kMaxHeader);
  const std::size_t used = parser.take_head(input);
  if (parser.fault()) return parser.fault()->status;
  if (used == 0) return -1;
  if (parser.chunked()) {
    std::string body;
    parser.take_chunks(input.substr(used), body, max_body);
    if (parser.fault()) return parser.fault()->status;
    if (!parser.chunks_done()) return -1;
  }
  return 0;
}

TEST(Guards, AnOrdinaryRequestPasses) {
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 0);
  EXPECT_EQ(refused("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "3\r\nabc\r\n0\r\n\r\n"),
            0);
}

TEST(Guards, TransferEncodingInHttp10IsRefused) {
  EXPECT_EQ(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
}

TEST(Guards, OnlyExactlyChunkedIsUnderstood) {
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"), 400);
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n"
                    "Content-Length: 3\r\n\r\nabc"),
            400);
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"),
            0);
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400);
}

TEST(Guards, ALengthGivenTwiceIsRefusedInAnyForm) {
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc"), 400);
  EXPECT_EQ(
      refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
      400);
  EXPECT_EQ(
      refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
      400);
  EXPECT_EQ(
      refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
              "\r\n0\r\n\r\n"),
      400);
  EXPECT_EQ(
      refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n"
              "\r\n0\r\n\r\n"),
      400);
}

TEST(Guards, ALengthThatIsNoPlainNumberIsRefused) {
  for (const char* length : {"+3", "0x3", "-1", "3 3", "", "18446744073709551616", "3;"}) {
    EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::string(length) +
                      "\r\n\r\nabc"),
              400)
        << length;
  }
}

TEST(Guards, FoldedHeaderLinesAreRefused) {
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n"), 400);
}

TEST(Guards, ExactlyOneHostIsWanted) {
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nA: x\r\n\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.0\r\nA: x\r\n\r\n"), 0);
}

TEST(Guards, BareLineFeedsAreRefusedAtOnce) {
  EXPECT_EQ(refused("GET / HTTP/1.1\nHost: x\n\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"), 400);
  EXPECT_EQ(
      refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
      400);
}

TEST(Guards, ControlCharactersInHeadersAreRefused) {
  EXPECT_EQ(refused(std::string_view("GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 39)), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n"), 400);
  EXPECT_EQ(refused("GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"), 400);
}

TEST(Guards, WhatDoesNotBeginWithAMethodIsRefusedWithoutWaiting) {
  EXPECT_EQ(refused("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(refused("\x16\x03\x01"), 400);  // TLS on a plain port
}

TEST(Guards, OtherVersionsOfHttpAreNamed) {
  EXPECT_EQ(refused("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
  EXPECT_EQ(refused("GET / HTTP/0.9\r\nHost: x\r\n\r\n"), 505);
  EXPECT_EQ(refused("GET / FOO\r\nHost: x\r\n\r\n"), 400);
  EXPECT_EQ(refused("GET /\r\n\r\n"), 400);
}

TEST(Guards, HeaderBlocksBeyondTheLimitAreRefused) {
  const std::string start = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
  EXPECT_EQ(refused(start + std::string(kMaxHeader, 'a')), 431);
  EXPECT_EQ(refused(start + std::string(kMaxHeader, 'a') + "\r\n\r\n"), 431);
  EXPECT_EQ(refused(start + std::string(kMaxHeader - start.size() - 4, 'a') + "\r\n\r\n"), 0);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (std::size_t i = 0; i < RequestParser::kMaxHeaders; ++i) many += "A: b\r\n";
  EXPECT_EQ(refused(many + "\r\n"), 431);
}

TEST(Guards, ChunkExtensionsAndTrailersCannotGrowWithoutEnd) {
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(refused(head + "1;" + std::string(kMaxHeader, 'a')), 431);
  EXPECT_EQ(refused(head + "1\r\na\r\n0\r\nT: " + std::string(kMaxHeader, 'a')), 431);
  std::string many = head;  // each alone is small
  for (int i = 0; i < 40; ++i) many += "1;" + std::string(1000, 'a') + "\r\na\r\n";
  EXPECT_EQ(refused(many + "0\r\n\r\n"), 431);
  EXPECT_EQ(refused(head + "1;a=b\r\na\r\n0\r\nT: v\r\n\r\n"), 0);
}

TEST(Guards, BadChunksAreRefused) {
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(refused(head + "g\r\n"), 400);
  EXPECT_EQ(refused(head + "-1\r\n"), 400);
  EXPECT_EQ(refused(head + "3\r\nabcX\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(refused(head + "11111111111111111\r\n"), 400);
  EXPECT_EQ(refused(head + "ffffffffffffffff\r\n"), 413);
}

TEST(Guards, AChunkedBodyBeyondTheLimitIsRefusedBeforeItIsRead) {
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(refused(head + "5\r\n", 4), 413);
  EXPECT_EQ(refused(head + "4\r\nabcd\r\n1\r\n", 4), 413);
  EXPECT_EQ(refused(head + "4\r\nabcd\r\n0\r\n\r\n", 4), 0);
}

TEST(Guards, UnknownExpectationsAreRefused) {
  EXPECT_EQ(refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n"), 417);
}

TEST(Guards, ThePathIsCleanOrRefused) {
  const auto path = [](std::string_view target) -> std::string {
    RequestParser parser(kMaxHeader);
    parser.take_head("GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return parser.fault() ? std::to_string(parser.fault()->status) : parser.request().path;
  };
  EXPECT_EQ(path("/"), "/");
  EXPECT_EQ(path("/a/b"), "/a/b");
  EXPECT_EQ(path("/a/b/"), "/a/b");
  EXPECT_EQ(path("/a%20b?c=d"), "/a b");
  EXPECT_EQ(path("http://host/a?b"), "/a");
  EXPECT_EQ(path("http://host"), "/");
  for (const char* bad : {"/a//b", "//", "/../a", "/a/..", "/a/%2e%2e/b", "/./a", "/a%00b",
                          "/a%2Fb", "/a%", "/a%zz", "*", "a"}) {
    EXPECT_EQ(path(bad), "400") << bad;
  }
}

TEST(Guards, AHeadThatArrivesByteByByteIsTakenOnce) {
  const std::string input = "POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
  RequestParser parser(kMaxHeader);
  for (std::size_t size = 0; size < input.size() - 3; ++size) {
    ASSERT_EQ(parser.take_head(std::string_view(input).substr(0, size)), 0u) << size;
    ASSERT_FALSE(parser.fault().has_value()) << size;
  }
  EXPECT_EQ(parser.take_head(input), input.size() - 3);
  EXPECT_EQ(parser.content_length(), 3u);
  EXPECT_EQ(parser.request().query, "b=c");
}

TEST(Guards, ChunksThatArriveByteByByteAreJoined) {
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string chunks = "3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
  RequestParser parser(kMaxHeader);
  ASSERT_EQ(parser.take_head(head), head.size());
  std::string body;
  std::string open;
  for (const char c : chunks) {
    open.push_back(c);
    open.erase(0, parser.take_chunks(open, body, 100));
    ASSERT_FALSE(parser.fault().has_value()) << parser.fault()->message;
  }
  EXPECT_TRUE(parser.chunks_done());
  EXPECT_EQ(body, "abc0123456789");
}

}  // namespace
}  // namespace signal_agent::http
