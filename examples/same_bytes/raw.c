/* raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]: predicts on a file of raw elements; with RUNS as
   many times, and prints the least microseconds that one took. */
#include <daq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void die(const char *why) {
    fprintf(stderr, "error: %s\n", why);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* One predict; the widths of the elements tell which. */
static daq_status predict(const daq_model *model, const void *in, size_t in_width, size_t in_size, void *out,
                          size_t out_width, size_t out_size) {
    const float *real_in[] = {in};
    const uint8_t *codes_in[] = {in};
    float *real[] = {out};
    uint8_t *codes[] = {out};
    if (in_width == 4 && out_width == 4) return daq_predict_f32_f32(model, real_in, &in_size, 1, real, &out_size, 1);
    if (in_width == 4) return daq_predict_f32_u8(model, real_in, &in_size, 1, codes, &out_size, 1);
    if (out_width == 4) return daq_predict_u8_f32(model, codes_in, &in_size, 1, real, &out_size, 1);
    return daq_predict_u8_u8(model, codes_in, &in_size, 1, codes, &out_size, 1);
}

int main(int argc, char **argv) {
    daq_model *model;
    daq_tensor x, y;
    size_t in_width, out_width;
    void *in, *out;
    FILE *file;
    int runs;
    double least = 1e18, time;
    if (argc != 6 && argc != 7) die("raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]");
    runs = argc == 7 ? atoi(argv[6]) : 1;
    if (daq_open(argv[1], NULL, &model) != DAQ_STATUS_OK) die(daq_last_error());
    if (daq_input(model, 0, &x) != DAQ_STATUS_OK) die(daq_last_error());
    if (daq_output(model, 0, &y) != DAQ_STATUS_OK) die(daq_last_error());
    in_width = strcmp(argv[2], "f32") == 0 ? 4 : 1;
    out_width = strcmp(argv[3], "f32") == 0 ? 4 : 1;
    in = malloc(x.elements * in_width);
    out = malloc(y.elements * out_width);
    file = fopen(argv[4], "rb");
    if (in == NULL || out == NULL || file == NULL) die(argv[4]);
    if (fread(in, in_width, x.elements, file) != x.elements) die("the input is too short");
    fclose(file);

    while (runs-- > 0) {
        const double start = now();
        if (predict(model, in, in_width, x.elements, out, out_width, y.elements) != DAQ_STATUS_OK) {
            die(daq_last_error());
        }
        time = now() - start;
        if (time < least) least = time;
    }
    if (argc == 7) printf("%.1f\n", least);
    file = fopen(argv[5], "wb");
    if (file == NULL || fwrite(out, out_width, y.elements, file) != y.elements) die(argv[5]);
    fclose(file);
    daq_close(model);
    free(in);
    free(out);
    return 0;
}
