/* From a picture to the input of a merged model, as afterimage prepares it (docs/merged-onnx.md). */
#ifndef PREPARE_H
#define PREPARE_H

#include <stddef.h>

/* 8-bit RGB, row by row. */
struct picture {
    int width, height;
    unsigned char *pixels;
};

/* What the metadata of the model say. */
struct preparation {
    int height, width;          /* input_size */
    int bgr, crop;              /* channels, fit */
    float mean[3], std[3];      /* per plane of the input, in its order */
    float exposure, most_gain;  /* exposure 0: the model has none */
};

/* Reads a binary PPM (P6, 255 levels). Returns NULL, or what is wrong; the caller frees the pixels. */
const char *read_ppm(const char *path, struct picture *picture);

/* tensor[(plane * height + y) * width + x]. Returns NULL, or what is wrong. */
const char *prepare(const struct preparation *how, const struct picture *picture, float *tensor);

/* binary16 and back, rounded to nearest even. */
unsigned short to_half(float value);
float from_half(unsigned short half);

#endif
