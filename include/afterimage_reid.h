/* Embeddings of boxes in memory: the layout of `trackers/reid.bin`, which `afterimage embed --boxes` writes.
 *
 * Map the file, look at the header, and every object is there with its embedding, in place and aligned to 4 bytes:
 *
 *     const struct afterimage_reid_header *file = mmap(...);
 *     if (!afterimage_reid_fits(file, bytes)) ...
 *     struct afterimage_obj_reid reid;
 *     const struct afterimage_reid_object *object = afterimage_reid_at(file, i, &reid);
 *
 * `struct afterimage_obj_reid` has the members of DeepStream's NvDsObjReid (nvds_tracker_meta.h, from 7.0 on): a program
 * that reads per-object ReID tensors there can be handed these. There is no copy on a GPU: ptr_dev is a null pointer.
 * All numbers are little-endian. C99 or C++11.
 */
#ifndef AFTERIMAGE_REID_H
#define AFTERIMAGE_REID_H

#include <stdint.h>
#include <string.h>

/* At the start of the file; the objects follow it. */
struct afterimage_reid_header {
    char magic[8];          /* "AFREID01" */
    uint32_t feature_size;  /* numbers of an embedding */
    uint32_t stride;        /* bytes from one object to the next: 64 + 4 feature_size */
    uint64_t count;         /* objects */
    uint8_t reserved[40];   /* zero */
};

/* One box; `feature_size` floats, of length 1 as a vector, follow it. */
struct afterimage_reid_object {
    uint64_t frame;         /* position of the frame in the source, from 0 */
    int64_t stamp_ns;       /* capture time, nanoseconds */
    int64_t track;          /* the tracker's number, -1: not known */
    int32_t class_id;       /* the detector's class, -1: not known */
    float score;            /* how sure the detector was, -1: not known */
    float left, top, width, height; /* pixels of the original frame, as the detector said */
    uint8_t reserved[16];   /* zero */
};

/* The members of NvDsObjReid. */
struct afterimage_obj_reid {
    uint32_t featureSize;
    float *ptr_host;
    float *ptr_dev;
};

/* Whether `file` is such a file of `bytes` bytes. */
static inline int afterimage_reid_fits(const struct afterimage_reid_header *file, uint64_t bytes)
{
    return bytes >= sizeof *file && memcmp(file->magic, "AFREID01", 8) == 0
        && file->stride == sizeof(struct afterimage_reid_object) + 4 * (uint64_t)file->feature_size
        && file->count == (bytes - sizeof *file) / file->stride
        && (bytes - sizeof *file) % file->stride == 0;
}

/* Object `i` (below `count`), and its embedding into `reid`. */
static inline const struct afterimage_reid_object *
afterimage_reid_at(const struct afterimage_reid_header *file, uint64_t i, struct afterimage_obj_reid *reid)
{
    const char *at = (const char *)file + sizeof *file + i * file->stride;
    reid->featureSize = file->feature_size;
    reid->ptr_host = (float *)(at + sizeof(struct afterimage_reid_object));
    reid->ptr_dev = 0;
    return (const struct afterimage_reid_object *)at;
}

#endif
