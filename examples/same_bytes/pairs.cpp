// The C++ calls behind functions of C's types, for `raw ... beside LIBRARY cpp RUNS`.
#include <daq.hpp>

#include <cstdint>

namespace {
template <class I, class O>
int predict(const void* model, const I* const* in, const std::size_t* in_size, O* const* out,
            const std::size_t* out_size) try {
  const auto& opened = *static_cast<const daq::model*>(model);
  opened.predict_into<I, O>({in[0], in_size[0]}, {out[0], out_size[0]});
  return 0;
} catch (const std::exception&) {
  return 1;
}
}  // namespace

#define PREDICT(NAME, I, O)                                                                      \
  extern "C" int NAME(const void* model, const I* const* in, const std::size_t* in_size,         \
                      std::size_t, O* const* out, const std::size_t* out_size, std::size_t) {    \
    return predict<I, O>(model, in, in_size, out, out_size);                                     \
  }
PREDICT(cpp_predict_f32_f32, float, float)
PREDICT(cpp_predict_f32_u8, float, std::uint8_t)
PREDICT(cpp_predict_u8_f32, std::uint8_t, float)
PREDICT(cpp_predict_u8_u8, std::uint8_t, std::uint8_t)

extern "C" int cpp_open(const char* path, const void*, void** model) try {
  *model = new daq::model(path);
  return 0;
} catch (const std::exception&) {
  return 1;
}
