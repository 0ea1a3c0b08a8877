/* The C interface from C99: what it gives, and what it says to bad calls.
 * Usage: test MODEL.daq (examples/textlines, quantized) */
#include <daq.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures = 0;

static void check_at(int line, int good, const char *what) {
    if (!good) {
        fprintf(stderr, "line %d: %s; last error: %s\n", line, what, daq_last_error());
        failures++;
    }
}
#define CHECK(e) check_at(__LINE__, (e), #e)

/* The call failed with this status, and its message holds this text. */
#define FAILS(call, status, text) \
    (CHECK((call) == (status)), CHECK(strstr(daq_last_error(), (text)) != NULL))

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(*size);
    if (bytes == NULL || fread(bytes, 1, *size, file) != *size) {
        perror(path);
        exit(2);
    }
    fclose(file);
    return bytes;
}

static void opens(const char *path) {
    size_t size, part;
    unsigned char *bytes = read_file(path, &size);
    daq_options options = {0};
    daq_model *model = NULL;
    daq_tensor x, y;

    CHECK(daq_open(path, NULL, &model) == DAQ_STATUS_OK);
    CHECK(daq_input_count(model) == 1 && daq_output_count(model) == 1);
    CHECK(daq_input(model, 0, &x) == DAQ_STATUS_OK);
    CHECK(daq_output(model, 0, &y) == DAQ_STATUS_OK);
    CHECK(strcmp(x.name, "x") == 0 && x.element_type == DAQ_TYPE_U8);
    CHECK(x.layout == DAQ_LAYOUT_PLAIN && x.rank == 4 && x.elements == 3 * 48 * 192);
    CHECK(x.shape[0] == 1 && x.shape[1] == 3 && x.shape[2] == 48 && x.shape[3] == 192);
    /* The pictures' pixels go from -1 to 1. */
    CHECK(x.quantized && fabsf(x.scale - 2.0f / 255.0f) < 1e-4f && abs(x.zero_point - 127) <= 1);
    CHECK(y.rank == 2 && y.elements == 2 && y.quantized);
    FAILS(daq_input(model, 1, &x), DAQ_STATUS_ARGUMENT, "no input 1, the model has 1");
    FAILS(daq_output(model, 0, NULL), DAQ_STATUS_ARGUMENT, "tensor is null");
    daq_close(model);

    options.threads = 2;
    CHECK(daq_open_memory(bytes, size, &options, &model) == DAQ_STATUS_OK);
    daq_close(model);

    /* In the middle of another file, aligned and not. */
    for (part = 60; part <= 64; part += 4) {
        FILE *package = tmpfile();
        size_t i;
        int fd;
        for (i = 0; i < part; i++) fputc('p', package);
        fwrite(bytes, 1, size, package);
        fputs("more", package);
        fflush(package);
        fd = fileno(package);
        CHECK(daq_open_fd(fd, part, size, NULL, &model) == DAQ_STATUS_OK);
        CHECK(lseek(fd, 0, SEEK_CUR) >= 0); /* still open */
        FAILS(daq_open_fd(fd, part, size + 5, NULL, NULL), DAQ_STATUS_ARGUMENT, "model is null");
        fclose(package);
        CHECK(daq_input_count(model) == 1);
        daq_close(model);
    }
    free(bytes);
}

static void bad_files(const char *path) {
    size_t size, cut;
    unsigned char *bytes = read_file(path, &size);
    daq_options options = {0};
    daq_model *model = (daq_model *)&size; /* becomes null on failure */
    int fds[2];

    FAILS(daq_open("no/such.daq", NULL, &model), DAQ_STATUS_MODEL, "no/such.daq");
    CHECK(model == NULL);
    FAILS(daq_open("/", NULL, &model), DAQ_STATUS_MODEL, "not a regular file");
    FAILS(daq_open(NULL, NULL, &model), DAQ_STATUS_ARGUMENT, "path is null");
    FAILS(daq_open(path, NULL, NULL), DAQ_STATUS_ARGUMENT, "model is null");
    FAILS(daq_open_memory(NULL, 10, NULL, &model), DAQ_STATUS_ARGUMENT, "null pointer");
    FAILS(daq_open_memory(NULL, 0, NULL, &model), DAQ_STATUS_MODEL, "is empty");
    FAILS(daq_open_memory(bytes, SIZE_MAX, NULL, &model), DAQ_STATUS_ARGUMENT, "fit memory");
    for (cut = 1; cut < size; cut += size / 50) {
        CHECK(daq_open_memory(bytes, cut, NULL, &model) == DAQ_STATUS_MODEL && model == NULL);
    }
    bytes[size / 2] ^= 1;
    FAILS(daq_open_memory(bytes, size, NULL, &model), DAQ_STATUS_MODEL, "checksum");
    memset(bytes, 0xa5, size);
    FAILS(daq_open_memory(bytes, size, NULL, &model), DAQ_STATUS_MODEL, "is not a .daq file");

    FAILS(daq_open_fd(-1, 0, 1, NULL, &model), DAQ_STATUS_ARGUMENT, "-1");
    FAILS(daq_open_fd(1 << 20, 0, 1, NULL, &model), DAQ_STATUS_MODEL, "cannot be read");
    CHECK(pipe(fds) == 0);
    FAILS(daq_open_fd(fds[0], 0, 1, NULL, &model), DAQ_STATUS_MODEL, "not a regular file");
    close(fds[0]);
    fds[0] = open(path, O_RDONLY);
    FAILS(daq_open_fd(fds[0], 1, size, NULL, &model), DAQ_STATUS_MODEL, "the file ends at");
    FAILS(daq_open_fd(fds[0], UINT64_MAX, 1, NULL, &model), DAQ_STATUS_MODEL, "the file ends at");
    close(fds[0]);
    close(fds[1]);

    options.threads = 257;
    FAILS(daq_open(path, &options, &model), DAQ_STATUS_ARGUMENT, "1 to 256");
    options.threads = 1;
    options.reserved[3] = 1;
    FAILS(daq_open(path, &options, &model), DAQ_STATUS_ARGUMENT, "reserved");
    options.reserved[3] = 0;
    options.backend = DAQ_BACKEND_NNAPI;
    FAILS(daq_open(path, &options, &model), DAQ_STATUS_ARGUMENT, "--features nnapi");
    options.backend = 3;
    FAILS(daq_open(path, &options, &model), DAQ_STATUS_ARGUMENT, "no backend 3");

    daq_close(NULL);
    CHECK(daq_input_count(NULL) == 0 && daq_output_count(NULL) == 0);
    FAILS(daq_input(NULL, 0, NULL), DAQ_STATUS_ARGUMENT, "model is null");
    free(bytes);
}

enum { IN = 3 * 48 * 192, OUT = 2 };
static float real[IN + 1], real_out[OUT];
static uint8_t codes[IN], codes_out[OUT];

static void predicts(const char *path) {
    daq_model *model = NULL;
    daq_tensor x, y;
    const float *reals_in[] = {real};
    const uint8_t *codes_in[] = {codes};
    float *to_reals[] = {real_out};
    uint8_t *to_codes[] = {codes_out};
    size_t in[] = {IN}, out[] = {OUT}, wrong[] = {IN - 1}, i, j;
    uint8_t first[OUT];

    if (daq_open(path, NULL, &model) != DAQ_STATUS_OK) exit(2);
    daq_input(model, 0, &x);
    daq_output(model, 0, &y);
    for (j = 0; j < 3; j++) {
        for (i = 0; i < IN; i++) {
            codes[i] = (uint8_t)((i * 7 + (i / 192) * (13 + j)) % 256);
            real[i] = (float)(codes[i] - x.zero_point) * x.scale;
        }
        /* The four agree: codes are the real numbers on the way in and on the way out. */
        CHECK(daq_predict_u8_u8(model, codes_in, in, 1, to_codes, out, 1) == DAQ_STATUS_OK);
        memcpy(first, codes_out, OUT);
        CHECK(abs(first[0] + first[1] - (int)(1.0f / y.scale + 0.5f) - 2 * y.zero_point) <= 1);
        CHECK(daq_predict_f32_u8(model, reals_in, in, 1, to_codes, out, 1) == DAQ_STATUS_OK);
        CHECK(memcmp(first, codes_out, OUT) == 0);
        CHECK(daq_predict_u8_f32(model, codes_in, in, 1, to_reals, out, 1) == DAQ_STATUS_OK);
        for (i = 0; i < OUT; i++) CHECK(real_out[i] == (float)(first[i] - y.zero_point) * y.scale);
        memset(real_out, 0, sizeof real_out);
        CHECK(daq_predict_f32_f32(model, reals_in, in, 1, to_reals, out, 1) == DAQ_STATUS_OK);
        for (i = 0; i < OUT; i++) CHECK(real_out[i] == (float)(first[i] - y.zero_point) * y.scale);
    }

    FAILS(daq_predict_f32_f32(NULL, reals_in, in, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "model is null");
    FAILS(daq_predict_f32_f32(model, NULL, in, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "inputs: a null pointer");
    FAILS(daq_predict_f32_f32(model, reals_in, NULL, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "sizes of inputs: a null pointer");
    FAILS(daq_predict_f32_f32(model, reals_in, in, 1, NULL, out, 1), DAQ_STATUS_ARGUMENT,
          "outputs: a null pointer");
    FAILS(daq_predict_f32_f32(model, reals_in, in, 2, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "2 inputs given, the model has 1");
    FAILS(daq_predict_f32_f32(model, reals_in, in, 1, to_reals, out, 0), DAQ_STATUS_ARGUMENT,
          "0 outputs given, the model has 1");
    FAILS(daq_predict_f32_f32(model, reals_in, wrong, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "input `x` has 27647 elements, the model's shape [1, 3, 48, 192] has 27648");
    FAILS(daq_predict_u8_u8(model, codes_in, in, 1, to_codes, wrong, 1), DAQ_STATUS_ARGUMENT,
          "27647 elements");
    to_reals[0] = NULL;
    FAILS(daq_predict_f32_f32(model, reals_in, in, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "an output: a null pointer");
    to_reals[0] = real + IN - 2;
    FAILS(daq_predict_f32_f32(model, reals_in, in, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "output 0 overlaps input 0");
    to_reals[0] = real_out;
    reals_in[0] = (const float *)(const void *)((const char *)(const void *)real + 2);
    FAILS(daq_predict_f32_f32(model, reals_in, in, 1, to_reals, out, 1), DAQ_STATUS_ARGUMENT,
          "not aligned");
    daq_close(model);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.daq\n", argv[0]);
        return 2;
    }
    CHECK(daq_last_error()[0] == 0);
    CHECK(strchr(daq_version(), '.') != NULL);
    opens(argv[1]);
    bad_files(argv[1]);
    predicts(argv[1]);
    if (failures == 0) puts("the C interface: all well");
    return failures != 0;
}
