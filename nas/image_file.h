// image_file.h -- one picture from a file: PPM and PGM (P2, P3, P5, P6; 8 bits), and PNG where libpng was
// there when LaNAS was built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lanas {

struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

// Error naming the file: unreadable, cut, of another kind.
Picture read_picture(const std::string& path);

// Bytes [side, side, 3] as a network sees them. Of the right size it is taken as it is; a 28 x 28 picture for
// side 32 is framed with zeros, as Fashion-MNIST is; any other is cut to its central square and scaled by
// averaging areas.
std::vector<uint8_t> fit_picture(const Picture& picture, int side);

}  // namespace lanas
