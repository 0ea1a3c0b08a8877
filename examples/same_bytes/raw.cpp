// raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT: one predict on a file of raw elements.
#include <daq.hpp>

#include <fstream>
#include <iostream>

template <class I, class O>
void predict(const daq::model& model, const char* input, const char* output) {
  std::vector<I> in(model.inputs().at(0).elements);
  std::ifstream from(input, std::ios::binary);
  if (!from.read(reinterpret_cast<char*>(in.data()), std::streamsize(in.size() * sizeof(I)))) {
    throw std::runtime_error("the input is too short");
  }
  const std::vector<O> out = model.predict<I, O>(in);
  std::ofstream(output, std::ios::binary)
      .write(reinterpret_cast<const char*>(out.data()), std::streamsize(out.size() * sizeof(O)));
}

int main(int argc, char** argv) try {
  if (argc != 6) throw std::runtime_error("raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT");
  const daq::model model(argv[1]);
  const std::string types = std::string(argv[2]) + argv[3];
  if (types == "f32f32") predict<float, float>(model, argv[4], argv[5]);
  else if (types == "f32u8") predict<float, std::uint8_t>(model, argv[4], argv[5]);
  else if (types == "u8f32") predict<std::uint8_t, float>(model, argv[4], argv[5]);
  else predict<std::uint8_t, std::uint8_t>(model, argv[4], argv[5]);
} catch (const std::exception& e) {
  std::cerr << "error: " << e.what() << "\n";
  return 1;
}
