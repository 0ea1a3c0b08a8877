/* The daq runtime for C. bindings/c/src has the source: `cargo xtask header --write` makes this file.
 *
 * A model is opened, asked for its tensors, run any number of times from any number of threads, and
 * closed. Functions that can fail return a daq_status; daq_last_error() then says what was wrong.
 */

#ifndef DAQ_H
#define DAQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a call came to. Where it is not DAQ_STATUS_OK, daq_last_error says what was wrong.
typedef enum daq_status {
  // Done.
  DAQ_STATUS_OK = 0,
  // A null pointer, a wrong size, an unknown index, an element type that a tensor does not have.
  DAQ_STATUS_ARGUMENT = 1,
  // The model cannot be used: no such file, damaged, cut short, made by a newer daq; no NNAPI where
  // that was asked for.
  DAQ_STATUS_MODEL = 2,
  // An error in daq itself; the model can still be used and closed.
  DAQ_STATUS_INTERNAL = 3,
} daq_status;

// The type in which a model holds a tensor.
typedef enum daq_type {
  // 32-bit float.
  DAQ_TYPE_F32 = 0,
  // Unsigned byte.
  DAQ_TYPE_U8 = 1,
  // Signed byte.
  DAQ_TYPE_I8 = 2,
  // 32-bit integer.
  DAQ_TYPE_I32 = 3,
  // 64-bit integer.
  DAQ_TYPE_I64 = 4,
  // A byte that is 0 or 1.
  DAQ_TYPE_BOOL = 5,
} daq_type;

// The order of a tensor's elements.
typedef enum daq_layout {
  // Row-major as ONNX has it: batch, channels, rows, columns.
  DAQ_LAYOUT_PLAIN = 0,
  // Channels last: batch, rows, columns, channels.
  DAQ_LAYOUT_CHANNELS_LAST = 1,
} daq_layout;

// Where a model runs. NNAPI is for libraries that were built with the feature `nnapi`.
typedef enum daq_backend {
  // On daq's own kernels, exactly.
  DAQ_BACKEND_CPU = 0,
  // On Android's accelerators, with what they do not take on the CPU.
  DAQ_BACKEND_NNAPI = 1,
  // On NNAPI where the phone has it, else on the CPU.
  DAQ_BACKEND_AUTO = 2,
} daq_backend;

// What the drivers of accelerators shall favour.
typedef enum daq_preference {
  // The time of one answer.
  DAQ_PREFERENCE_FAST_SINGLE_ANSWER = 0,
  // The battery.
  DAQ_PREFERENCE_LOW_POWER = 1,
  // The number of answers a second, as for the frames of a camera.
  DAQ_PREFERENCE_SUSTAINED_SPEED = 2,
} daq_preference;

// A model that was opened. Any number of threads may use one at the same time: each call works in
// memory of its own, and calls share the threads of the options. daq_close must come after all
// other calls.
typedef struct daq_model daq_model;

// How to run a model. All zeros, and a null pointer in place of it, are the defaults.
typedef struct daq_options {
  // Threads that share the work of one call, the caller's included: 1 to 256; 0 is 1. The results
  // are the same bit for bit.
  uint32_t threads;
  // A daq_backend.
  uint32_t backend;
  // A daq_preference; on the CPU it changes nothing.
  uint32_t preference;
  // 1 lets accelerators compute floats with 16 bits; on the CPU it changes nothing.
  uint32_t allow_fp16;
  // Must be 0.
  uint32_t reserved[4];
} daq_options;

// An input or output of a model. What its pointers show lives until daq_close.
typedef struct daq_tensor {
  // Its name, UTF-8.
  const char *name;
  // The type in which the model holds it; callers may use float or uint8_t where it is one of
  // these and `quantized`.
  enum daq_type element_type;
  // The order of the elements.
  enum daq_layout layout;
  // `rank` dimensions, outermost first, in the order of `layout`.
  const size_t *shape;
  // The number of dimensions.
  size_t rank;
  // The number of elements, the product of the dimensions.
  size_t elements;
  // Whether it has a scale: real = (code - zero_point) * scale.
  bool quantized;
  // The scale; 0 where it is not quantized.
  float scale;
  // The code of 0, from 0 to 255; 0 where it is not quantized.
  int32_t zero_point;
} daq_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Opens a .daq file. Its weights are used where they lie in the file, which must not be changed in
// place while the model is open; replacing it by renaming is fine.
//
// # Safety
// `path` is null or a string that ends with a zero byte; `options` is null or points to options;
// `model` is null or points to a pointer, which becomes null on failure.
enum daq_status daq_open(const char *path,
                         const struct daq_options *options,
                         struct daq_model **model);

// Opens a .daq file that is in memory: `size` bytes at `bytes`. They are copied.
//
// # Safety
// `bytes` is null or points to `size` bytes; `options` and `model` as for daq_open.
enum daq_status daq_open_memory(const void *bytes,
                                size_t size,
                                const struct daq_options *options,
                                struct daq_model **model);

// Opens a .daq file that is part of an open file: `size` bytes from `offset` on, as Android's
// AssetFileDescriptor gives them. Where `offset` is a multiple of 64 the bytes are used where they
// lie, else they are copied. The descriptor stays the caller's and may be closed at once.
//
// # Safety
// `options` and `model` as for daq_open.
enum daq_status daq_open_fd(int32_t fd,
                            uint64_t offset,
                            uint64_t size,
                            const struct daq_options *options,
                            struct daq_model **model);

// Closes a model; null is fine. Nothing that it gave may be used afterwards.
//
// # Safety
// `model` is null or comes from one of the open functions, is not closed yet, and is not in use.
void daq_close(struct daq_model *model);

// The number of inputs; 0 where `model` is null.
//
// # Safety
// `model` is null or an open model.
size_t daq_input_count(const struct daq_model *model);

// The number of outputs; 0 where `model` is null.
//
// # Safety
// `model` is null or an open model.
size_t daq_output_count(const struct daq_model *model);

// Describes input `index`, counted from 0.
//
// # Safety
// `model` is null or an open model, `tensor` is null or points to a daq_tensor.
enum daq_status daq_input(const struct daq_model *model, size_t index, struct daq_tensor *tensor);

// Describes output `index`, counted from 0.
//
// # Safety
// `model` is null or an open model, `tensor` is null or points to a daq_tensor.
enum daq_status daq_output(const struct daq_model *model, size_t index, struct daq_tensor *tensor);

// Runs the model: real numbers in, real numbers out.
//
// `inputs` holds `input_count` pointers, one to the elements of each input in the model's order,
// and `input_sizes` their numbers of elements; likewise `outputs`. An output must not overlap
// another buffer.
//
// # Safety
// `model` is null or an open model; the arrays hold as many entries as the counts say, and each
// buffer as many elements as its size says. Null pointers and wrong counts and sizes are errors.
enum daq_status daq_predict_f32_f32(const struct daq_model *model,
                                    const float *const *inputs,
                                    const size_t *input_sizes,
                                    size_t input_count,
                                    float *const *outputs,
                                    const size_t *output_sizes,
                                    size_t output_count);

// Runs the model: real numbers in, codes out; see daq_predict_f32_f32.
//
// # Safety
// As for daq_predict_f32_f32.
enum daq_status daq_predict_f32_u8(const struct daq_model *model,
                                   const float *const *inputs,
                                   const size_t *input_sizes,
                                   size_t input_count,
                                   uint8_t *const *outputs,
                                   const size_t *output_sizes,
                                   size_t output_count);

// Runs the model: codes in, real numbers out; see daq_predict_f32_f32.
//
// # Safety
// As for daq_predict_f32_f32.
enum daq_status daq_predict_u8_f32(const struct daq_model *model,
                                   const uint8_t *const *inputs,
                                   const size_t *input_sizes,
                                   size_t input_count,
                                   float *const *outputs,
                                   const size_t *output_sizes,
                                   size_t output_count);

// Runs the model: codes in, codes out; see daq_predict_f32_f32.
//
// # Safety
// As for daq_predict_f32_f32.
enum daq_status daq_predict_u8_u8(const struct daq_model *model,
                                  const uint8_t *const *inputs,
                                  const size_t *input_sizes,
                                  size_t input_count,
                                  uint8_t *const *outputs,
                                  const size_t *output_sizes,
                                  size_t output_count);

// What was wrong with the last call of this thread that failed, as text in UTF-8; empty where none
// did. It lives until the thread's next failing call.
const char *daq_last_error(void);

// The version of this library, such as "0.1.0".
const char *daq_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DAQ_H */
