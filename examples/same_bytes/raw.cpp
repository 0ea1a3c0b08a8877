// raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]: predicts on a file of raw elements; with RUNS as
// many times, and prints the least microseconds that one took.
#include <daq.hpp>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>

template <class I, class O>
void predict(const daq::model& model, const char* input, const char* output, int runs) {
  using clock = std::chrono::steady_clock;
  std::vector<I> in(model.inputs().at(0).elements);
  std::ifstream from(input, std::ios::binary);
  if (!from.read(reinterpret_cast<char*>(in.data()), std::streamsize(in.size() * sizeof(I)))) {
    throw std::runtime_error("the input is too short");
  }
  std::vector<O> out;
  double least = 1e18;
  for (int i = 0; i < std::max(runs, 1); ++i) {
    const auto start = clock::now();
    out = model.predict<I, O>(in);
    least = std::min(least, std::chrono::duration<double, std::micro>(clock::now() - start).count());
  }
  if (runs > 0) std::cout << least << "\n";
  std::ofstream(output, std::ios::binary)
      .write(reinterpret_cast<const char*>(out.data()), std::streamsize(out.size() * sizeof(O)));
}

int main(int argc, char** argv) try {
  if (argc != 6 && argc != 7) {
    throw std::runtime_error("raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]");
  }
  const int runs = argc == 7 ? std::stoi(argv[6]) : 0;
  const daq::model model(argv[1]);
  const std::string types = std::string(argv[2]) + argv[3];
  if (types == "f32f32") predict<float, float>(model, argv[4], argv[5], runs);
  else if (types == "f32u8") predict<float, std::uint8_t>(model, argv[4], argv[5], runs);
  else if (types == "u8f32") predict<std::uint8_t, float>(model, argv[4], argv[5], runs);
  else predict<std::uint8_t, std::uint8_t>(model, argv[4], argv[5], runs);
} catch (const std::exception& e) {
  std::cerr << "error: " << e.what() << "\n";
  return 1;
}
