#ifndef CIMAGE_H
#define CIMAGE_H

#include <stddef.h>
#include <stdint.h>

// libpng reports errors by longjmp, which must not pass through Swift frames: it starts and ends inside these functions.

typedef struct {
  // Freed by image_release. NULL after an error.
  uint8_t *_Nullable bytes;
  size_t count;
  // libpng's words; empty if all went well.
  char error[128];
} ImageBytes;

// Encodes [height, width, 3] samples of 8 bits (sRGB) as a PNG, with `texts` pairs of a keyword (Latin-1, 1 to 79 characters)
// and a UTF-8 text as iTXt chunks before the picture. The same arguments give the same bytes.
ImageBytes image_encode_png(
    const uint8_t *_Nonnull pixels, uint32_t width, uint32_t height, const char *_Nonnull const *_Nullable keys,
    const char *_Nonnull const *_Nullable values, int texts);

void image_release(ImageBytes *_Nonnull image);

#endif
