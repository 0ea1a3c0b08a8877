/* raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT: one predict on a file of raw elements. */
#include <daq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *why) {
    fprintf(stderr, "error: %s\n", why);
    exit(1);
}

int main(int argc, char **argv) {
    daq_model *model;
    daq_tensor x, y;
    daq_status status;
    size_t in_width, out_width;
    void *in, *out;
    FILE *file;
    if (argc != 6) die("raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT");
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

    if (in_width == 4) {
        const float *inputs[] = {in};
        float *reals[] = {out};
        uint8_t *codes[] = {out};
        status = out_width == 4
            ? daq_predict_f32_f32(model, inputs, &x.elements, 1, reals, &y.elements, 1)
            : daq_predict_f32_u8(model, inputs, &x.elements, 1, codes, &y.elements, 1);
    } else {
        const uint8_t *inputs[] = {in};
        float *reals[] = {out};
        uint8_t *codes[] = {out};
        status = out_width == 4
            ? daq_predict_u8_f32(model, inputs, &x.elements, 1, reals, &y.elements, 1)
            : daq_predict_u8_u8(model, inputs, &x.elements, 1, codes, &y.elements, 1);
    }
    if (status != DAQ_STATUS_OK) die(daq_last_error());
    file = fopen(argv[5], "wb");
    if (file == NULL || fwrite(out, out_width, y.elements, file) != y.elements) die(argv[5]);
    fclose(file);
    daq_close(model);
    free(in);
    free(out);
    return 0;
}
