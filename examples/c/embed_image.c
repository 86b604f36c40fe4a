/* Embeddings of pictures with a merged model of `afterimage export`, through ONNX Runtime's C API:
 *
 *     embed_image MODEL.onnx PICTURE.ppm...
 *
 * What is done to the pixels comes from the metadata of the model. Prints a line that begins with #, then a line of numbers a
 * picture, as examples/python/embed_image.py does. ORT_DYLIB_PATH names the library. */
#include "prepare.h"

#include <dlfcn.h>
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All that is used is older than this version of the API. */
#define NEEDED_API 17
/* Of the entries in the metadata. */
#define SCHEMA "2"

static const OrtApi *ort;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("embed_image: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* Ends the program where ONNX Runtime reports an error. */
static void check(OrtStatus *status, const char *what) {
    if (status) fail("%s: %s", what, ort->GetErrorMessage(status));
}

/* Loads the library: ORT_DYLIB_PATH, or where afterimage looks for it. */
static void *load(void) {
    /* The builds for Linux report to their maker since 1.31; this has it never begin. Must be set before the library is there. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    const char *named = getenv("ORT_DYLIB_PATH"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char path[4096];
    void *library;
    if (named && *named) {
        library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    } else {
        snprintf(path, sizeof path, "%s%s/afterimage/onnxruntime/libonnxruntime.so", cache ? cache : home ? home : "",
                 cache ? "" : "/.cache");
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) library = dlopen("/usr/lib/afterimage/libonnxruntime.so", RTLD_NOW | RTLD_LOCAL);
        if (!library) library = dlopen("libonnxruntime.so", RTLD_NOW | RTLD_LOCAL);
    }
    if (!library) fail("ONNX Runtime cannot be loaded (name it with ORT_DYLIB_PATH): %s", dlerror());
    const OrtApiBase *(*base)(void);
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    if (!base) fail("the library that was loaded is not ONNX Runtime");
    ort = base()->GetApi(NEEDED_API);
    if (!ort) fail("ONNX Runtime %s is too old", base()->GetVersionString());
    return library;
}

static OrtModelMetadata *metadata;
static OrtAllocator *allocator;

/* The entry afterimage.KEY, to be freed; NULL where it is not there. */
static char *entry(const char *key) {
    char name[64];
    snprintf(name, sizeof name, "afterimage.%s", key);
    char *value = NULL, *copy = NULL;
    check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, name, &value), "metadata");
    if (value) {
        copy = strdup(value);
        check(ort->AllocatorFree(allocator, value), "metadata");
    }
    return copy;
}

/* The entry, which must be there. */
static char *needed(const char *key) {
    char *value = entry(key);
    if (!value) fail("the model has no entry afterimage.%s: it was not written by `afterimage export`", key);
    return value;
}

/* `count` numbers of the entry; it may lack where `fallback` is given. */
static void numbers(const char *key, float *values, int count, const float *fallback) {
    char *text = fallback ? entry(key) : needed(key), *rest = text;
    for (int i = 0; i < count; i++) {
        char *end = rest;
        values[i] = text ? strtof(rest, &end) : *fallback;
        if (text && (end == rest || !isfinite(values[i]))) fail("afterimage.%s = \"%s\" is not %d numbers", key, text, count);
        rest = end;
    }
    free(text);
}

/* Whether the entry says `word`. */
static int says(const char *key, const char *word) {
    char *value = needed(key);
    int same = strcmp(value, word) == 0;
    free(value);
    return same;
}

/* The preparation, from the metadata. */
static struct preparation preparation(void) {
    const float none = 0;
    struct preparation how;
    if (!says("schema", SCHEMA)) fail("the metadata of the model are of another version than " SCHEMA);
    if (!says("interpolation", "bilinear") || !says("input_layout", "nchw")) fail("the model wants a preparation that is not known here");
    if (!says("motion_crop", "false"))
        fail("the model is of a run with preprocess.motion_crop: it embeds the window around what moves, not whole pictures");
    float sides[2];
    numbers("input_size", sides, 2, NULL);
    for (int i = 0; i < 2; i++)
        if (!(sides[i] >= 1 && sides[i] <= 4096)) fail("afterimage.input_size is not two numbers from 1 to 4096");
    how.height = (int)sides[0];
    how.width = (int)sides[1];
    how.bgr = says("channels", "bgr");
    how.crop = says("fit", "crop");
    numbers("mean", how.mean, 3, NULL);
    numbers("std", how.std, 3, NULL);
    numbers("exposure", &how.exposure, 1, &none);
    numbers("most_gain", &how.most_gain, 1, &none);
    return how;
}

int main(int count, char **arguments) {
    if (count < 3) {
        fputs("usage: embed_image MODEL.onnx PICTURE.ppm...\n", stderr);
        return 2;
    }
    void *library = load();
    OrtEnv *environment = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    OrtMemoryInfo *memory = NULL;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "embed_image", &environment), "ONNX Runtime");
    check(ort->CreateSessionOptions(&options), "ONNX Runtime");
    check(ort->CreateSession(environment, arguments[1], options, &session), arguments[1]);
    check(ort->GetAllocatorWithDefaultOptions(&allocator), "ONNX Runtime");
    check(ort->SessionGetModelMetadata(session, &metadata), arguments[1]);
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "ONNX Runtime");

    struct preparation how = preparation();
    char *input = needed("input"), *output = needed("output"), *space = needed("space"), *head = needed("head");
    int half = says("io", "f16");
    float batch = 1, dim;
    if (!says("batch", "dynamic")) numbers("batch", &batch, 1, NULL);
    numbers("dim", &dim, 1, NULL);
    if (!(batch >= 1 && batch <= 256 && dim >= 1 && dim <= 1e6f)) fail("afterimage.batch or afterimage.dim is out of range");
    /* A model of a fixed batch gets the picture so many times; the first row is taken. */
    size_t images = (size_t)batch, values = 3 * (size_t)how.height * (size_t)how.width, width = half ? 2 : 4;
    float *tensor = malloc(values * sizeof *tensor);
    char *data = malloc(images * values * width);
    if (!tensor || !data) fail("no memory for %zu images", images);
    printf("# space %s head %s dim %.0f\n", space, head, dim);

    for (int i = 2; i < count; i++) {
        struct picture picture;
        const char *wrong = read_ppm(arguments[i], &picture);
        if (!wrong) wrong = prepare(&how, &picture, tensor);
        if (wrong) fail("%s %s", arguments[i], wrong);
        free(picture.pixels);
        for (size_t v = 0; v < images * values; v++) {
            unsigned short small = to_half(tensor[v % values]);
            memcpy(data + v * width, half ? (void *)&small : (void *)&tensor[v % values], width);
        }
        int64_t shape[4] = {(int64_t)images, 3, how.height, how.width};
        OrtValue *image = NULL, *found = NULL;
        OrtTensorTypeAndShapeInfo *info = NULL;
        ONNXTensorElementDataType type = half ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        check(ort->CreateTensorWithDataAsOrtValue(memory, data, images * values * width, shape, 4, type, &image), "input");
        const char *const inputs[] = {input}, *const outputs[] = {output};
        check(ort->Run(session, NULL, inputs, (const OrtValue *const *)&image, 1, outputs, 1, &found), arguments[1]);
        size_t elements = 0;
        void *row = NULL;
        check(ort->GetTensorTypeAndShape(found, &info), "output");
        check(ort->GetTensorShapeElementCount(info, &elements), "output");
        check(ort->GetTensorMutableData(found, &row), "output");
        if (elements != images * (size_t)dim) fail("the output has %zu numbers, %.0f a row were expected", elements, dim);
        for (size_t k = 0; k < (size_t)dim; k++) {
            float value = half ? from_half(((unsigned short *)row)[k]) : ((float *)row)[k];
            printf("%s%.6f", k ? " " : "", value);
        }
        putchar('\n');
        ort->ReleaseTensorTypeAndShapeInfo(info);
        ort->ReleaseValue(found);
        ort->ReleaseValue(image);
    }
    free(tensor);
    free(data);
    free(input);
    free(output);
    free(space);
    free(head);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseModelMetadata(metadata);
    ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options);
    ort->ReleaseEnv(environment);
    (void)library; /* Stays loaded: ONNX Runtime has threads of its own until the process ends. */
    return fflush(stdout) == 0 ? 0 : 1;
}
