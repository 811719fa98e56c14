#include "CImage.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  ImageBytes image;
  size_t capacity;
  jmp_buf failed;
} Writer;

static void fail(png_structp png, png_const_charp message) {
  Writer *writer = png_get_error_ptr(png);
  snprintf(writer->image.error, sizeof writer->image.error, "%s", message);
  longjmp(writer->failed, 1);
}

// A picture that libpng has doubts about is not written: texts that it would drop are an error here.
static void warn(png_structp png, png_const_charp message) { fail(png, message); }

static void append(png_structp png, png_bytep data, size_t length) {
  Writer *writer = png_get_io_ptr(png);
  ImageBytes *image = &writer->image;
  if (length > writer->capacity - image->count) {
    if (length > SIZE_MAX / 2 - image->count) fail(png, "the picture is too large");
    size_t capacity = 2 * (image->count + length);
    uint8_t *grown = realloc(image->bytes, capacity);
    if (grown == NULL) fail(png, "there is not enough memory");
    image->bytes = grown;
    writer->capacity = capacity;
  }
  memcpy(image->bytes + image->count, data, length);
  image->count += length;
}

static void flush(png_structp png) { (void)png; }

static void write_picture(
    png_structp png, png_infop info, const uint8_t *pixels, uint32_t width, uint32_t height, const png_text *chunks,
    int texts) {
  png_set_IHDR(
      png, info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
      PNG_FILTER_TYPE_DEFAULT);
  png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
  png_set_compression_level(png, 6);
  png_set_compression_mem_level(png, 8);
  png_set_compression_window_bits(png, 15);
  png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
  if (texts > 0) png_set_text(png, info, chunks, texts);
  png_write_info(png, info);
  for (uint32_t row = 0; row < height; row++) png_write_row(png, pixels + (size_t)row * width * 3);
  png_write_end(png, NULL);
}

ImageBytes image_encode_png(
    const uint8_t *pixels, uint32_t width, uint32_t height, const char *const *keys, const char *const *values,
    int texts) {
  Writer *writer = calloc(1, sizeof *writer);
  png_text *chunks = calloc((size_t)texts + 1, sizeof *chunks);
  ImageBytes result = {0};
  snprintf(result.error, sizeof result.error, "there is not enough memory");
  if (writer == NULL || chunks == NULL) {
    free(writer);
    free(chunks);
    return result;
  }
  for (int index = 0; index < texts; index++) {
    chunks[index].compression = PNG_ITXT_COMPRESSION_NONE;
    chunks[index].key = (char *)keys[index];
    chunks[index].text = (char *)values[index];
    chunks[index].itxt_length = strlen(values[index]);
  }
  // Volatile: written between setjmp and longjmp.
  png_structp volatile png = NULL;
  png_infop volatile info = NULL;
  if (setjmp(writer->failed) == 0) {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, writer, fail, warn);
    if (png != NULL) info = png_create_info_struct(png);
    if (info != NULL) {
      png_set_write_fn(png, writer, append, flush);
      write_picture(png, info, pixels, width, height, chunks, texts);
    } else {
      memcpy(writer->image.error, result.error, sizeof result.error);
    }
  }
  png_structp created = png;
  png_infop described = info;
  if (created != NULL) png_destroy_write_struct(&created, &described);
  if (writer->image.error[0] != 0) image_release(&writer->image);
  result = writer->image;
  free(writer);
  free(chunks);
  return result;
}

void image_release(ImageBytes *image) {
  free(image->bytes);
  image->bytes = NULL;
  image->count = 0;
}
