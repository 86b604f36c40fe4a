#include "prepare.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Largest side of a picture. */
#define MAX_SIDE 32768
/* Bits after the point of a weight of the resize. */
#define BITS 22

/* The next number of a PPM header, after spaces and comments; -1: there is none. */
static long number(FILE *file) {
    int c = getc(file);
    while (isspace(c) || c == '#') {
        while (c == '#' && (c = getc(file)) != '\n' && c != EOF) c = '#';
        c = getc(file);
    }
    long value = isdigit(c) ? 0 : -1;
    for (; isdigit(c) && value < 1000000; c = getc(file)) value = value * 10 + (c - '0');
    return value; /* The one white space after the number is taken too. */
}

const char *read_ppm(const char *path, struct picture *picture) {
    FILE *file = fopen(path, "rb");
    if (!file) return "cannot be opened";
    char magic[2];
    const char *wrong = NULL;
    picture->pixels = NULL;
    if (fread(magic, 1, 2, file) != 2 || memcmp(magic, "P6", 2) != 0) {
        wrong = "is no binary PPM (P6); convert it: pngtopnm, djpeg, or ffmpeg -i PICTURE out.ppm";
    } else {
        long width = number(file), height = number(file), levels = number(file);
        if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) {
            wrong = "has a width or height that is not from 1 to 32768";
        } else if (levels != 255) {
            wrong = "has not 255 levels";
        } else {
            size_t bytes = (size_t)width * (size_t)height * 3;
            picture->width = (int)width;
            picture->height = (int)height;
            picture->pixels = malloc(bytes);
            if (!picture->pixels) wrong = "is too large for the memory";
            else if (fread(picture->pixels, 1, bytes, file) != bytes) wrong = "is cut off: it has fewer pixels than it says";
        }
    }
    fclose(file);
    if (wrong) {
        free(picture->pixels);
        picture->pixels = NULL;
    }
    return wrong;
}

/* Start and length, in pixels, of what is kept along an axis of `along` pixels that becomes `side` (the other: `across`,
 * `other`). The picture is scaled until it covers the input, as torchvision does: this axis to other * along / across, where
 * that is more than `side`; and of it `side` pixels are kept from the middle, halves to even. */
static void kept(int along, int across, int side, int other, int crop, double *start, double *length) {
    *start = 0;
    *length = along;
    if (!crop || (long)along * other <= (long)across * side) return;
    long longer = (long)other * along / across, half = (longer - side) / 2;
    if ((longer - side) % 2 == 1 && half % 2 == 1) half++;
    double scale = (double)along / (double)longer;
    *start = (double)half * scale;
    *length = fmin(side * scale, along - *start);
}

/* Pillow's BILINEAR along one axis: `lines` lines of `in` RGB pixels, `step` bytes from one to the next and `line` bytes
 * between lines, to `out` pixels. A triangle as wide as the scale, so that shrinking averages; rounded to 8 bits. */
static int resize(const unsigned char *from, int in, size_t step, size_t line, unsigned char *to, int out, size_t to_step,
                  size_t to_line, int lines, double start, double length) {
    double scale = length / out, support = scale > 1 ? scale : 1;
    int most = (int)ceil(support) * 2 + 1;
    double *weights = malloc((size_t)most * sizeof *weights);
    int32_t *fixed = malloc((size_t)most * sizeof *fixed);
    if (weights && fixed) {
        for (int x = 0; x < out; x++) {
            double centre = start + (x + 0.5) * scale, sum = 0;
            int first = (int)fmax(centre - support + 0.5, 0), end = (int)fmin(centre + support + 0.5, in);
            for (int i = first; i < end; i++) {
                double distance = fabs((i - centre + 0.5) / support);
                sum += weights[i - first] = distance < 1 ? 1 - distance : 0;
            }
            for (int i = first; i < end; i++) fixed[i - first] = (int32_t)floor(weights[i - first] / sum * (1 << BITS) + 0.5);
            for (int y = 0; y < lines; y++) {
                for (int c = 0; c < 3; c++) {
                    const unsigned char *pixel = from + (size_t)y * line + (size_t)first * step + (size_t)c;
                    int64_t value = 1 << (BITS - 1);
                    for (int i = first; i < end; i++, pixel += step) value += (int64_t)fixed[i - first] * *pixel;
                    value >>= BITS;
                    to[(size_t)y * to_line + (size_t)x * to_step + (size_t)c] = (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
                }
            }
        }
    }
    int done = weights && fixed;
    free(weights);
    free(fixed);
    return done;
}

const char *prepare(const struct preparation *how, const struct picture *picture, float *tensor) {
    int width = picture->width, height = picture->height;
    double left, wide, top, high;
    kept(width, height, how->width, how->height, how->crop, &left, &wide);
    kept(height, width, how->height, how->width, how->crop, &top, &high);
    size_t row = (size_t)how->width * 3, plane = (size_t)how->height * (size_t)how->width;
    unsigned char *narrow = malloc(row * (size_t)height), *resized = malloc(plane * 3);
    int done = narrow && resized &&
               resize(picture->pixels, width, 3, (size_t)width * 3, narrow, how->width, 3, row, height, left, wide) &&
               resize(narrow, height, row, 3, resized, how->height, row, 3, how->width, top, high);
    if (done) {
        float gain = 1;
        if (how->exposure > 0) { /* The mean of all pixels is brought to `exposure`. */
            uint64_t sum = 0;
            for (size_t i = 0; i < plane * 3; i++) sum += resized[i];
            double mean = (double)sum / (255.0 * (double)(plane * 3));
            gain = sum == 0 ? how->most_gain : (float)fmin(how->exposure / mean, how->most_gain);
        }
        for (int p = 0; p < 3; p++) {
            const unsigned char *channel = resized + (how->bgr ? 2 - p : p);
            for (size_t i = 0; i < plane; i++) {
                float value = fminf(gain * ((float)channel[i * 3] / 255.0f), 1.0f);
                tensor[(size_t)p * plane + i] = (value - how->mean[p]) / how->std[p];
            }
        }
    }
    free(narrow);
    free(resized);
    return done ? NULL : "is too large for the memory";
}

unsigned short to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned sign = bits >> 16 & 0x8000;
    float size = fabsf(value);
    if (size != size) return (unsigned short)(sign | 0x7e00);
    if (size >= 65520) return (unsigned short)(sign | 0x7c00);
    if (size < 0x1p-14f) return (unsigned short)(sign | (unsigned)lrintf(size * 0x1p24f)); /* steps of 2^-24 */
    bits &= 0x7fffffff;
    bits += 0xfff + (bits >> 13 & 1); /* nearest even */
    return (unsigned short)(sign | (bits - 0x38000000) >> 13);
}

float from_half(unsigned short half) {
    unsigned exponent = half >> 10 & 31, part = half & 1023;
    float size = exponent == 0    ? ldexpf((float)part, -24)
                 : exponent == 31 ? (part ? NAN : INFINITY)
                                  : ldexpf((float)(part | 1024), (int)exponent - 25);
    return half & 0x8000 ? -size : size;
}
