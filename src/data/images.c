/* An image file and its label file, read together and made one array each; slicing and one fixed rearrangement of the
   pixels (the permuted task). */
#include "kwm/data.h"

#include <string.h>

#include "kwm/rng.h"

#include "idx.h"

enum { CLASSES = 10 };

struct pair {
  struct kwm_idx images, labels;
};

static void pair_close(struct pair *pair) {
  kwm_idx_close(&pair->images);
  kwm_idx_close(&pair->labels);
}

/* Opens both and reads their headers; also on failure the caller closes. `pair` comes zeroed. */
static kwm_status pair_open(struct pair *pair, const char *folder, enum kwm_split split) {
  const bool test = split == KWM_TEST;
  KWM_TRY(kwm_idx_open(&pair->images, folder, test ? "t10k-images-idx3-ubyte" : "train-images-idx3-ubyte", 3));
  KWM_TRY(kwm_idx_open(&pair->labels, folder, test ? "t10k-labels-idx1-ubyte" : "train-labels-idx1-ubyte", 1));
  KWM_CHECK(pair->images.n == pair->labels.n, KWM_ERR_DATA,
            "data %s: wanted %lld labels (one for each image in %s), found %lld", pair->labels.path,
            (long long)pair->images.n, pair->images.name, (long long)pair->labels.n);
  return KWM_OK;
}

static void describe(struct kwm_file_facts *file, const struct kwm_idx *idx) {
  snprintf(file->name, sizeof file->name, "%s", idx->name);
  file->bytes = idx->bytes;
  file->crc32 = idx->crc32;
}

static kwm_status read_file(struct kwm_idx *idx, uint8_t **data, struct kwm_file_facts *file, const char *what) {
  void *memory = NULL;
  KWM_TRY(kwm_alloc(&memory, (size_t)(idx->n * idx->item_bytes), what));
  *data = memory;
  KWM_TRY(kwm_idx_read(idx, *data));
  describe(file, idx);
  return KWM_OK;
}

static kwm_status check_labels(const struct kwm_images *images, const char *path) {
  for (int64_t i = 0; i < images->n; i++)
    KWM_CHECK(images->labels[i] < images->classes, KWM_ERR_DATA,
              "data %s: wanted label 0 to %d, found %d at sample %lld", path, images->classes - 1, images->labels[i],
              (long long)i);
  return KWM_OK;
}

static kwm_status read_pair(struct kwm_images *images, struct pair *pair, const char *folder, enum kwm_split split) {
  KWM_TRY(pair_open(pair, folder, split));
  images->n = pair->images.n;
  images->length = pair->images.item_bytes;
  KWM_TRY(read_file(&pair->labels, &images->labels, &images->files[1], "labels"));
  KWM_TRY(check_labels(images, pair->labels.path));
  return read_file(&pair->images, &images->pixels, &images->files[0], "images");
}

kwm_status kwm_images_read(struct kwm_images *images, const char *folder, enum kwm_split split) {
  memset(images, 0, sizeof *images);
  images->classes = CLASSES;
  struct pair pair = {0};
  const kwm_status status = read_pair(images, &pair, folder, split);
  pair_close(&pair);
  if (status != KWM_OK) kwm_images_fini(images);
  return status;
}

void kwm_images_fini(struct kwm_images *images) {
  kwm_free(images->pixels);
  kwm_free(images->labels);
  memset(images, 0, sizeof *images);
}

kwm_status kwm_images_probe(const char *folder, enum kwm_split split, int64_t *n, int64_t *length) {
  struct pair pair = {0};
  const kwm_status status = pair_open(&pair, folder, split);
  if (status == KWM_OK) {
    *n = pair.images.n;
    *length = pair.images.item_bytes;
  }
  pair_close(&pair);
  return status;
}

size_t kwm_images_bytes(int64_t n, int64_t length) {
  return kwm_mem_rounded((size_t)(n * length)) + kwm_mem_rounded((size_t)n);
}

/* Replaces *data by a copy of its bytes [first, first + count). */
static kwm_status cut(uint8_t **data, int64_t first, int64_t count, const char *what) {
  void *kept = NULL;
  KWM_TRY(kwm_alloc(&kept, (size_t)count, what));
  memcpy(kept, *data + first, (size_t)count);
  kwm_free(*data);
  *data = kept;
  return KWM_OK;
}

kwm_status kwm_images_slice(struct kwm_images *images, int64_t first, int64_t count) {
  KWM_CHECK(first >= 0 && count >= 1 && first < images->n && count <= images->n - first, KWM_ERR_USAGE,
            "data: wanted %lld samples from sample %lld on, found %lld samples in all", (long long)count,
            (long long)first, (long long)images->n);
  if (first == 0) { /* a copy beside the whole would double the peak: the rest stays allocated, unused */
    images->n = count;
    return KWM_OK;
  }
  KWM_TRY(cut(&images->pixels, first * images->length, count * images->length, "images kept"));
  KWM_TRY(cut(&images->labels, first, count, "labels kept"));
  images->n = count;
  return KWM_OK;
}

kwm_status kwm_images_permute(struct kwm_images *images, uint64_t seed) {
  void *order_memory = NULL, *row_memory = NULL;
  const size_t length = (size_t)images->length;
  kwm_status status = kwm_alloc(&order_memory, length * sizeof(int32_t), "order of pixels");
  if (status == KWM_OK) status = kwm_alloc(&row_memory, length, "one image");
  if (status != KWM_OK) goto out;
  int32_t *order = order_memory;
  uint8_t *row = row_memory;
  kwm_rng_permutation(seed, KWM_RNG_PIXELS, 0, images->length, order);
  for (int64_t i = 0; i < images->n; i++) {
    uint8_t *pixels = images->pixels + i * images->length;
    for (size_t j = 0; j < length; j++) row[j] = pixels[order[j]];
    memcpy(pixels, row, length);
  }
out:
  kwm_free(order_memory);
  kwm_free(row_memory);
  return status;
}
