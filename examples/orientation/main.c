/* Which way up is a line of text? main MODEL.daq FRAME.ppm, a frame of 192 x 48 pixels as a camera gives. */
#include <daq.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 48, COLUMNS = 192, PIXELS = ROWS * COLUMNS };

static void die(const char *why) {
    fprintf(stderr, "error: %s\n", why);
    exit(1);
}

int main(int argc, char **argv) {
    static uint8_t frame[PIXELS][3];
    static float blue_green_red[3][PIXELS];
    const float *inputs[] = {blue_green_red[0]};
    float scores[2], *outputs[] = {scores};
    size_t in_size = 3 * PIXELS, out_size = 2;
    unsigned columns, rows, white;
    daq_model *model;
    FILE *file;
    if (argc != 3) die("usage: main MODEL.daq FRAME.ppm");
    file = fopen(argv[2], "rb");
    if (file == NULL || fscanf(file, "P6 %u %u %u", &columns, &rows, &white) != 3 || fgetc(file) != '\n' ||
        columns != COLUMNS || rows != ROWS || white != 255 || fread(frame, 3, PIXELS, file) != PIXELS) {
        die("the frame is no binary PPM of 192 x 48 pixels");
    }
    fclose(file);
    /* As the model was trained: planes of blue, green and red from -1 to 1. */
    for (int c = 0; c < 3; c++) {
        for (int p = 0; p < PIXELS; p++) blue_green_red[c][p] = ((float)frame[p][2 - c] - 127.5f) / 127.5f;
    }
    if (daq_open(argv[1], NULL, &model) != DAQ_STATUS_OK) die(daq_last_error());
    if (daq_predict_f32_f32(model, inputs, &in_size, 1, outputs, &out_size, 1) != DAQ_STATUS_OK) {
        die(daq_last_error());
    }
    printf("%s degrees, %.4f\n", scores[1] > scores[0] ? "180" : "0", scores[1] > scores[0] ? scores[1] : scores[0]);
    daq_close(model);
    return 0;
}
