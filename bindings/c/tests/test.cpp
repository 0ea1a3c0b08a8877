// daq.hpp from C++17. DAQ_TEST_MODEL names examples/textlines, quantized.
#include <daq.hpp>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

namespace {

std::string path() { return std::getenv("DAQ_TEST_MODEL"); }

std::vector<std::uint8_t> file() {
  std::ifstream in(path(), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::uint8_t> some_codes(std::size_t n, unsigned seed) {
  std::vector<std::uint8_t> codes(n);
  for (std::size_t i = 0; i < n; ++i) codes[i] = std::uint8_t(i * 7 + i / 192 * (13 + seed));
  return codes;
}

std::vector<float> reals(const std::vector<std::uint8_t>& codes, const daq::tensor& t) {
  std::vector<float> x;
  for (int c : codes) x.push_back(float(c - t.zero_point) * t.scale);
  return x;
}

// The message and status of what `call` throws.
template <class F>
std::pair<daq_status, std::string> thrown(F call) {
  try {
    call();
  } catch (const daq::error& e) {
    return {e.status(), e.what()};
  }
  return {DAQ_STATUS_OK, "nothing was thrown"};
}

#define EXPECT_THROWN(call, wanted, text)                                        \
  do {                                                                           \
    const auto t = thrown([&] { call; });                                        \
    EXPECT_EQ(t.first, wanted);                                                  \
    EXPECT_NE(t.second.find(text), std::string::npos) << "it says: " << t.second; \
  } while (false)

TEST(Model, DescribesItsTensors) {
  const daq::model model(path());
  ASSERT_EQ(model.inputs().size(), 1u);
  const daq::tensor& x = model.inputs()[0];
  EXPECT_EQ(x.name, "x");
  EXPECT_EQ(x.shape, (std::vector<std::size_t>{1, 3, 48, 192}));
  EXPECT_EQ(x.elements, 27648u);
  EXPECT_EQ(x.type, DAQ_TYPE_U8);
  EXPECT_EQ(x.layout, DAQ_LAYOUT_PLAIN);
  EXPECT_NEAR(x.scale, 2.0 / 255, 1e-4);
  EXPECT_EQ(model.outputs()[0].shape, (std::vector<std::size_t>{1, 2}));
}

TEST(Model, FourPredictsAgree) {
  const daq::model model(path());
  const auto& y = model.outputs()[0];
  for (unsigned seed = 0; seed < 3; ++seed) {
    const auto codes = some_codes(27648, seed);
    const auto real = reals(codes, model.inputs()[0]);
    const auto c = model.predict<std::uint8_t, std::uint8_t>(codes);
    ASSERT_EQ(c.size(), 2u);
    EXPECT_NEAR((c[0] + c[1] - 2 * y.zero_point) * y.scale, 1.0, 2 * y.scale);
    EXPECT_EQ((model.predict<float, std::uint8_t>(real)), c);
    EXPECT_EQ((model.predict<std::uint8_t, float>(codes)), reals(c, y));
    EXPECT_EQ((model.predict<float, float>(real)), reals(c, y));
  }
}

TEST(Model, TakesViewsAndBuffers) {
  const daq::model model(path(), {2});
  const auto codes = some_codes(27648, 1);
  const auto expected = model.predict<std::uint8_t, float>(codes);
  std::array<float, 2> into{};
  model.predict_into<std::uint8_t, float>({codes.data(), codes.size()}, into);
  EXPECT_EQ(std::vector<float>(into.begin(), into.end()), expected);
  float plain[2] = {};
  model.run<std::uint8_t, float>({codes}, {plain});
  EXPECT_EQ(std::vector<float>(plain, plain + 2), expected);
}

TEST(Model, OpensFromMemoryAndFromAFile) {
  const auto codes = some_codes(27648, 2);
  const auto expected = daq::model(path()).predict<std::uint8_t, float>(codes);
  const auto bytes = file();
  EXPECT_EQ((daq::model::from_memory(bytes).predict<std::uint8_t, float>(codes)), expected);

  const int fd = open(path().c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  daq::model part = daq::model::from_fd(fd, 0, bytes.size());
  close(fd);
  const daq::model moved = std::move(part);
  EXPECT_EQ((moved.predict<std::uint8_t, float>(codes)), expected);
  EXPECT_FALSE(part);
  EXPECT_TRUE(part.inputs().empty());
  EXPECT_THROWN((part.predict<std::uint8_t, float>(codes)), DAQ_STATUS_ARGUMENT, "model is null");
}

TEST(Model, SaysWhatIsWrong) {
  EXPECT_THROWN(daq::model("no/such.daq"), DAQ_STATUS_MODEL, "no/such.daq");
  auto bytes = file();
  bytes.resize(bytes.size() - 1);
  EXPECT_THROWN(daq::model::from_memory(bytes), DAQ_STATUS_MODEL, "cut short");
  EXPECT_THROWN(daq::model(path(), {1000}), DAQ_STATUS_ARGUMENT, "1 to 256");
  const daq::model model(path());
  const std::vector<float> little(5);
  EXPECT_THROWN(model.predict(daq::view<const float>(little)), DAQ_STATUS_ARGUMENT,
                "input `x` has 5 elements");
  std::vector<float> out(3);
  const std::vector<float> in(27648);
  EXPECT_THROWN((model.predict_into<float, float>(in, out)), DAQ_STATUS_ARGUMENT, "3 elements");
  EXPECT_THROWN((model.run<float, float>({}, {})), DAQ_STATUS_ARGUMENT, "0 inputs given");
}

TEST(Model, ServesManyThreads) {
  const daq::model model(path(), {2});
  std::vector<std::vector<std::uint8_t>> inputs, expected;
  for (unsigned i = 0; i < 8; ++i) {
    inputs.push_back(some_codes(27648, i));
    expected.push_back(model.predict<std::uint8_t, std::uint8_t>(inputs[i]));
  }
  // DAQ_TEST_SECONDS makes it a stress test.
  const char* seconds = std::getenv("DAQ_TEST_SECONDS");
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(seconds == nullptr ? 1 : std::atoi(seconds));
  std::atomic<int> wrong{0}, done{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      do {
        wrong += model.predict<std::uint8_t, std::uint8_t>(inputs[i]) != expected[i];
        ++done;
        // Errors are each thread's own.
        const auto text = thrown([] { daq::model("none"); }).second;
        wrong += text.find("none") == std::string::npos;
      } while (std::chrono::steady_clock::now() < end);
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(done, 8);
}

TEST(ModelBuilder, OpensAsDnnlibraryDid) {
  const daq::model model(path());
  const auto codes = some_codes(model.inputs()[0].elements, 5);
  const auto expected = model.predict<std::uint8_t, float>(codes);
  const std::string output = model.outputs()[0].name;
  const auto built = daq::ModelBuilder().readFile(path()).setOutput(output).allowFp16(true).threads(2).compile(
      daq::ModelBuilder::PREFERENCE_SUSTAINED_SPEED);
  EXPECT_EQ((built.predict<std::uint8_t, float>(codes)), expected);

  const auto bytes = file();
  const auto again = daq::ModelBuilder().readBuffer(bytes).compile(daq::ModelBuilder::PREFERENCE_LOW_POWER);
  EXPECT_EQ((again.predict<std::uint8_t, float>(codes)), expected);
  const int fd = open(path().c_str(), O_RDONLY);
  const auto third = daq::ModelBuilder().readFileDescriptor(fd, 0, bytes.size()).compile();
  close(fd);
  EXPECT_EQ((third.predict<std::uint8_t, float>(codes)), expected);

  const auto nnapi = daq::ModelBuilder().readFile(path()).backend(DAQ_BACKEND_NNAPI);
  EXPECT_THROWN(nnapi.compile(), DAQ_STATUS_ARGUMENT, "built without NNAPI");
  EXPECT_THROWN(daq::ModelBuilder().compile(), DAQ_STATUS_ARGUMENT, "readFile");
  EXPECT_THROWN(daq::ModelBuilder().readFile(path()).setOutput("none").compile(), DAQ_STATUS_ARGUMENT,
                "no output `none`; it has " + output);
}

}  // namespace
