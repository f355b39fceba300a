/* Any bytes as an image file, plain or gzip by the first byte, beside labels that fit three images: refused as data, or
   every pixel that the header promises is there. */
#include "fuzz.h"

#include "kwm/data.h"

static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  char other[512];
  struct kwm_images images;
  if (n == 0) return 0;
  const bool zipped = data[0] & 1;
  snprintf(other, sizeof other, "%s/t10k-images-idx3-ubyte%s", fuzz_folder(), zipped ? "" : ".gz");
  unlink(other);
  fuzz_file("t10k-labels-idx1-ubyte", labels, sizeof labels);
  fuzz_file(zipped ? "t10k-images-idx3-ubyte.gz" : "t10k-images-idx3-ubyte", data + 1, n - 1);
  memset(&images, 0, sizeof images);
  const kwm_status status = kwm_images_read(&images, fuzz_folder(), KWM_TEST);
  must(status == KWM_OK || status == KWM_ERR_DATA || status == KWM_ERR_SYSTEM, "read or refused");
  if (status != KWM_OK) return 0;
  must(images.n == 3 && images.length > 0, "three images");
  uint64_t sum = 0;
  for (int64_t k = 0; k < images.n * images.length; k++) sum += images.pixels[k];
  must(sum <= (uint64_t)(images.n * images.length) * 255, "pixels");
  kwm_images_fini(&images);
  return 0;
}
