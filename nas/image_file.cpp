#include "nas/image_file.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>

#include "kernels/core/check.h"
#ifdef LANAS_PNG
#include <png.h>
#endif

namespace lanas {
namespace {

constexpr int kLargest = 16384;  // pixels of a side

// Netpbm: P2/P3 numbers as text, P5/P6 as bytes; whitespace and # comments between the numbers of the head.
class NetpbmReader {
 public:
  NetpbmReader(std::string text, const std::string& path) : text_(std::move(text)), path_(path) {}

  Picture read() {
    const char kind = text_[1];
    at_ = 2;
    Picture picture;
    picture.width = number("the width", kLargest);
    picture.height = number("the height", kLargest);
    const int largest = number("the largest value", 255), channels = kind == '3' || kind == '6' ? 3 : 1;
    CHECK(picture.width > 0 && picture.height > 0 && largest > 0, path_, ": a picture of ", picture.width,
          " x ", picture.height, " with values up to ", largest, ", expected more than 0 of each");
    const bool bytes = kind == '5' || kind == '6';
    at_ += bytes;  // one whitespace
    const size_t pixels = size_t(picture.width) * size_t(picture.height);
    CHECK(!bytes || text_.size() >= at_ + pixels * size_t(channels), path_, ": is cut, expected ",
          pixels * size_t(channels), " bytes of pixels");
    picture.rgb.resize(3 * pixels);
    for (size_t p = 0; p < pixels; ++p)
      for (size_t c = 0; c < 3; ++c) {
        if (c > 0 && channels == 1) {
          picture.rgb[3 * p + c] = picture.rgb[3 * p];
          continue;
        }
        const int value = bytes ? uint8_t(text_[at_++]) : number("a pixel", largest);
        picture.rgb[3 * p + c] = uint8_t(std::min(255, (value * 255 + largest / 2) / largest));
      }
    return picture;
  }

 private:
  int number(const char* what, int largest) {
    while (at_ < text_.size() && (std::isspace(uint8_t(text_[at_])) || text_[at_] == '#')) {
      if (text_[at_] == '#') at_ = std::min(text_.find('\n', at_), text_.size() - 1);
      ++at_;
    }
    int value = 0;
    const size_t first = at_;
    while (at_ < text_.size() && std::isdigit(uint8_t(text_[at_])) && value <= largest)
      value = 10 * value + (text_[at_++] - '0');
    CHECK(at_ > first && value <= largest, path_, ": expected ", what, " from 0 to ", largest, " at byte ",
          first);
    return value;
  }

  std::string text_;
  const std::string& path_;
  size_t at_ = 0;
};

Picture read_png([[maybe_unused]] const std::string& text, const std::string& path) {
#ifdef LANAS_PNG
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  Picture picture;
  if (png_image_begin_read_from_memory(&image, text.data(), text.size())) {
    CHECK(image.width <= kLargest && image.height <= kLargest, path, ": a picture of ", image.width, " x ",
          image.height, ", expected sides up to ", kLargest);
    image.format = PNG_FORMAT_RGB;
    image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;  // 16 bits a channel are not linear light, as 8 are not
    picture.width = int(image.width);
    picture.height = int(image.height);
    picture.rgb.resize(PNG_IMAGE_SIZE(image));
    png_color black{};
    png_image_finish_read(&image, &black, picture.rgb.data(), 0, nullptr);
  }
  const std::string message = image.message;
  const bool failed = PNG_IMAGE_FAILED(image);
  png_image_free(&image);
  CHECK(!failed, path, ": is no readable PNG: ", message);
  return picture;
#else
  throw Error(path + ": is a PNG, and this build has no libpng; PPM and PGM are read");
#endif
}

}  // namespace

Picture read_picture(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in && (in.peek(), !in.bad()), path, ": cannot be read, expected a PPM, PGM or PNG picture");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  if (text.starts_with("\x89PNG")) return read_png(text, path);
  const bool netpbm =
      text.size() > 2 && text[0] == 'P' && std::string("2356").find(text[1]) != std::string::npos;
  CHECK(netpbm, path, ": expected a PPM, PGM or PNG picture, found another kind of file");
  return NetpbmReader(std::move(text), path).read();
}

std::vector<uint8_t> fit_picture(const Picture& picture, int side) {
  if (picture.width == side && picture.height == side) return picture.rgb;
  std::vector<uint8_t> fitted(size_t(side) * size_t(side) * 3);
  auto pixel = [&](int y, int x) { return fitted.data() + (size_t(y) * size_t(side) + size_t(x)) * 3; };
  auto source = [&](int y, int x) {
    return picture.rgb.data() + (size_t(y) * size_t(picture.width) + size_t(x)) * 3;
  };
  if (side == 32 && picture.width == 28 && picture.height == 28) {
    for (int y = 0; y < 28; ++y) std::copy_n(source(y, 0), 3 * 28, pixel(y + 2, 2));
    return fitted;
  }
  const int square = std::min(picture.width, picture.height);
  const int top = (picture.height - square) / 2, left = (picture.width - square) / 2;
  const double scale = double(square) / side;
  // Every target pixel is the mean of the area that it covers, its borders weighed by their share.
  auto share = [&](int target, int from) {
    return std::min(from + 1.0, (target + 1) * scale) - std::max(double(from), target * scale);
  };
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      double sum[3] = {}, area = 0;
      for (int v = int(y * scale); v < std::min(square, int(std::ceil((y + 1) * scale))); ++v)
        for (int u = int(x * scale); u < std::min(square, int(std::ceil((x + 1) * scale))); ++u) {
          const double weight = share(y, v) * share(x, u);
          area += weight;
          for (int c = 0; c < 3; ++c) sum[c] += weight * source(top + v, left + u)[c];
        }
      for (int c = 0; c < 3; ++c) pixel(y, x)[c] = uint8_t(std::lround(sum[c] / area));
    }
  return fitted;
}

}  // namespace lanas
