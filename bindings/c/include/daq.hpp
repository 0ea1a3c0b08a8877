// The daq runtime for C++17: `daq.h` with owners, views and exceptions. Header only.
//
//   daq::model model("mobilenet_v2.daq");
//   std::vector<float> scores = model.predict<float, float>(pixels);
//   std::vector<std::uint8_t> codes = model.predict<float, std::uint8_t>(pixels);
#ifndef DAQ_HPP
#define DAQ_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "daq.h"

namespace daq {

// What a call that failed throws: the message of the library, and its status.
class error : public std::runtime_error {
 public:
  error(daq_status status, const char* why) : std::runtime_error(why), status_(status) {}
  daq_status status() const noexcept { return status_; }

 private:
  daq_status status_;
};

// Elements that somebody else owns, as C++20's std::span.
template <class T>
class view {
 public:
  constexpr view() noexcept = default;
  constexpr view(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  // Of anything with data() and size(): std::vector, std::array, std::span, another view.
  template <class C, class = std::enable_if_t<std::is_convertible_v<
                         decltype(std::declval<C&>().data()), T*>>>
  constexpr view(C&& c) noexcept : data_(c.data()), size_(c.size()) {}
  template <std::size_t N>
  constexpr view(T (&array)[N]) noexcept : data_(array), size_(N) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// An input or output of a model; see daq_tensor.
struct tensor {
  std::string name;
  daq_type type;
  daq_layout layout;
  std::vector<std::size_t> shape;
  std::size_t elements;
  bool quantized;
  float scale;
  std::int32_t zero_point;
};

// How to run a model.
struct options {
  // Threads that share the work of one call, 1 to 256.
  std::uint32_t threads = 1;
  // Where it runs; the other two are for the drivers of NNAPI.
  daq_backend backend = DAQ_BACKEND_CPU;
  daq_preference preference = DAQ_PREFERENCE_FAST_SINGLE_ANSWER;
  bool allow_fp16 = false;
};

// An open model. Any number of threads may call predict and run at the same time.
class model {
 public:
  // Opens a .daq file.
  explicit model(const std::string& path, options o = {}) {
    const daq_options c = c_options(o);
    take([&](daq_model** m) { return daq_open(path.c_str(), &c, m); });
  }

  // Opens a .daq file that is in memory; the bytes are copied.
  static model from_memory(view<const std::uint8_t> bytes, options o = {}) {
    const daq_options c = c_options(o);
    model m;
    m.take([&](daq_model** p) { return daq_open_memory(bytes.data(), bytes.size(), &c, p); });
    return m;
  }

  // Opens `size` bytes from `offset` of an open file; the descriptor stays the caller's.
  static model from_fd(int fd, std::uint64_t offset, std::uint64_t size, options o = {}) {
    const daq_options c = c_options(o);
    model m;
    m.take([&](daq_model** p) { return daq_open_fd(fd, offset, size, &c, p); });
    return m;
  }

  const std::vector<tensor>& inputs() const noexcept { return inputs_; }
  const std::vector<tensor>& outputs() const noexcept { return outputs_; }

  // The elements of one output, of a model with one input: the first output, or the one chosen.
  template <class I = float, class O = float>
  std::vector<O> predict(view<const I> input) const {
    if (outputs_.size() <= 1) {
      std::vector<O> output(outputs_.empty() ? 0 : outputs_.front().elements);
      predict_into<I, O>(input, output);
      return output;
    }
    std::vector<std::vector<O>> all;
    for (const tensor& t : outputs_) all.emplace_back(t.elements);
    run<I, O>({input}, {all.begin(), all.end()});
    return std::move(all[output_]);
  }

  // Chooses the output that predict gives, by name.
  void choose_output(const std::string& name) {
    std::string names;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (outputs_[i].name == name) {
        output_ = i;
        return;
      }
      names += (i ? ", " : "") + outputs_[i].name;
    }
    const std::string why = "the model has no output `" + name + "`; it has " + names;
    throw error(DAQ_STATUS_ARGUMENT, why.c_str());
  }

  // As predict, into the caller's buffer.
  template <class I = float, class O = float>
  void predict_into(view<const I> input, view<O> output) const {
    const I* const in[] = {input.data()};
    O* const out[] = {output.data()};
    const std::size_t in_size = input.size(), out_size = output.size();
    check(call(in, &in_size, 1, out, &out_size, 1));
  }

  // Any number of inputs and outputs, in the model's order, into the caller's buffers.
  template <class I = float, class O = float>
  void run(const std::vector<view<const I>>& inputs, const std::vector<view<O>>& outputs) const {
    std::vector<const I*> in;
    std::vector<O*> out;
    std::vector<std::size_t> in_sizes, out_sizes;
    for (auto v : inputs) in.push_back(v.data()), in_sizes.push_back(v.size());
    for (auto v : outputs) out.push_back(v.data()), out_sizes.push_back(v.size());
    check(call(in.data(), in_sizes.data(), in.size(), out.data(), out_sizes.data(), out.size()));
  }

  // Whether it holds a model: not after it was moved from.
  explicit operator bool() const noexcept { return handle_ != nullptr; }
  // The handle of the C interface, which stays this object's.
  daq_model* get() const noexcept { return handle_.get(); }

 private:
  struct closer {
    void operator()(daq_model* m) const noexcept { daq_close(m); }
  };
  std::unique_ptr<daq_model, closer> handle_;
  std::vector<tensor> inputs_, outputs_;
  std::size_t output_ = 0;

  model() = default;

  static void check(daq_status status) {
    if (status != DAQ_STATUS_OK) throw error(status, daq_last_error());
  }

  static daq_options c_options(options o) noexcept {
    daq_options c{};
    c.threads = o.threads;
    c.backend = o.backend;
    c.preference = o.preference;
    c.allow_fp16 = o.allow_fp16;
    return c;
  }

  template <class Open>
  void take(Open open) {
    daq_model* m = nullptr;
    check(open(&m));
    handle_.reset(m);
    inputs_ = described(daq_input_count(m), daq_input);
    outputs_ = described(daq_output_count(m), daq_output);
  }

  template <class Describe>
  std::vector<tensor> described(std::size_t count, Describe describe) const {
    std::vector<tensor> all;
    for (std::size_t i = 0; i < count; ++i) {
      daq_tensor t{};
      check(describe(handle_.get(), i, &t));
      all.push_back({t.name, t.element_type, t.layout, {t.shape, t.shape + t.rank}, t.elements,
                     t.quantized, t.scale, t.zero_point});
    }
    return all;
  }

  template <class I, class O>
  daq_status call(const I* const* in, const std::size_t* in_sizes, std::size_t in_count,
                  O* const* out, const std::size_t* out_sizes, std::size_t out_count) const {
    constexpr bool codes_in = std::is_same_v<I, std::uint8_t>;
    constexpr bool codes_out = std::is_same_v<O, std::uint8_t>;
    static_assert(codes_in || std::is_same_v<I, float>, "inputs are float or std::uint8_t");
    static_assert(codes_out || std::is_same_v<O, float>, "outputs are float or std::uint8_t");
    const daq_model* m = handle_.get();
    if constexpr (codes_in && codes_out) {
      return daq_predict_u8_u8(m, in, in_sizes, in_count, out, out_sizes, out_count);
    } else if constexpr (codes_in) {
      return daq_predict_u8_f32(m, in, in_sizes, in_count, out, out_sizes, out_count);
    } else if constexpr (codes_out) {
      return daq_predict_f32_u8(m, in, in_sizes, in_count, out, out_sizes, out_count);
    } else {
      return daq_predict_f32_f32(m, in, in_sizes, in_count, out, out_sizes, out_count);
    }
  }
};

// Opens a model as DNNLibrary did:
//
//   daq::model model = daq::ModelBuilder().readFile("m.daq").setOutput("prob").allowFp16(true).compile(
//       daq::ModelBuilder::PREFERENCE_FAST_SINGLE_ANSWER);
class ModelBuilder {
 public:
  enum Preference {
    PREFERENCE_LOW_POWER = 0,  // on the CPU: one thread
    PREFERENCE_FAST_SINGLE_ANSWER = 1,
    PREFERENCE_SUSTAINED_SPEED = 2,
  };

  ModelBuilder& readFile(std::string path) {
    open_ = [path = std::move(path)](options o) { return model(path, o); };
    return *this;
  }
  // The bytes must live until compile.
  ModelBuilder& readBuffer(view<const std::uint8_t> bytes) {
    open_ = [bytes](options o) { return model::from_memory(bytes, o); };
    return *this;
  }
  // The descriptor must be open until compile.
  ModelBuilder& readFileDescriptor(int fd, std::uint64_t offset, std::uint64_t size) {
    open_ = [=](options o) { return model::from_fd(fd, offset, size, o); };
    return *this;
  }
  // Which output predict gives.
  ModelBuilder& setOutput(std::string name) {
    output_ = std::move(name);
    return *this;
  }
  // Where the model runs: on the CPU where this is not called.
  ModelBuilder& backend(daq_backend where) {
    options_.backend = where;
    return *this;
  }
  // Lets NNAPI compute floats with 16 bits; results on the CPU do not depend on it.
  ModelBuilder& allowFp16(bool allow) {
    options_.allow_fp16 = allow;
    return *this;
  }
  ModelBuilder& threads(std::uint32_t count) {
    options_.threads = count;
    return *this;
  }

  model compile(Preference preference = PREFERENCE_FAST_SINGLE_ANSWER) const {
    if (!open_) throw error(DAQ_STATUS_ARGUMENT, "no model: call readFile or readBuffer first");
    options o = options_;
    if (preference == PREFERENCE_LOW_POWER) {
      o.threads = 1;
      o.preference = DAQ_PREFERENCE_LOW_POWER;
    } else if (preference == PREFERENCE_SUSTAINED_SPEED) {
      o.preference = DAQ_PREFERENCE_SUSTAINED_SPEED;
    }
    model m = open_(o);
    if (!output_.empty()) m.choose_output(output_);
    return m;
  }

 private:
  std::function<model(options)> open_;
  std::string output_;
  options options_;
};

// The library's version, such as "0.1.0".
inline std::string version() { return daq_version(); }

}  // namespace daq

#endif  // DAQ_HPP
