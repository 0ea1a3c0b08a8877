// Which way up is a line of text? main MODEL.daq FRAME.ppm, a frame of 192 x 48 pixels as a camera gives.
#include <daq.hpp>

#include <cstdio>
#include <fstream>
#include <iostream>

int main(int argc, char** argv) try {
  constexpr std::size_t rows = 48, columns = 192, pixels = rows * columns;
  if (argc != 3) throw std::runtime_error("usage: main MODEL.daq FRAME.ppm");
  std::ifstream file(argv[2], std::ios::binary);
  std::string kind;
  std::size_t width = 0, height = 0, white = 0;
  file >> kind >> width >> height >> white;
  file.get();
  std::vector<std::uint8_t> frame(3 * pixels);
  if (kind != "P6" || width != columns || height != rows || white != 255 ||
      !file.read(reinterpret_cast<char*>(frame.data()), std::streamsize(frame.size()))) {
    throw std::runtime_error("the frame is no binary PPM of 192 x 48 pixels");
  }
  // As the model was trained: planes of blue, green and red from -1 to 1.
  std::vector<float> input;
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t p = 0; p < pixels; ++p) input.push_back((float(frame[3 * p + 2 - c]) - 127.5f) / 127.5f);
  }
  const daq::model model(argv[1]);
  const std::vector<float> scores = model.predict(daq::view<const float>(input));
  const std::size_t best = scores.at(1) > scores.at(0);
  std::printf("%s degrees, %.4f\n", best ? "180" : "0", double(scores[best]));
} catch (const std::exception& e) {
  std::cerr << "error: " << e.what() << "\n";
  return 1;
}
