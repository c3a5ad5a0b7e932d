// training_cases.cpp -- cases of the optimisers, of clipping, of augmentation and of shuffling.
#include "kernels/ops/augment.h"
#include "kernels/ops/optimizer.h"
#include "kernels/ops/shuffle.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

template <class T>
const std::function<double(const T&)> kOnlyRead;

OpCase sgd_case(int count) {
  return {join("sgd of ", count), 1, [=](CaseBuilder& b) {
            float* w = b.buffer("w", normal_draws(count, 1), normal_draws(count, 2));
            float* buffer = b.buffer("buffer", normal_draws(count, 3), normal_draws(count, 4));
            const float* g = b.buffer("g", normal_draws(count, 5), normal_draws(count, 6), false);
            const SgdState* state = b.buffer<SgdState>("state", {{0.1f, 0.9f, 3e-4f, 0.5f}},
                                                       {{0.2f, 0.8f, 1e-4f, 0.25f}}, kOnlyRead<SgdState>);
            b.call([=](Stream& stream) { sgd_step(stream, w, buffer, g, count, state); });
          }};
}

OpCase lookahead_case(int count) {
  return {join("lookahead of ", count), 1, [=](CaseBuilder& b) {
            float* w = b.buffer("w", normal_draws(count, 1), normal_draws(count, 2));
            const float* buffer = b.buffer("buffer", normal_draws(count, 3), normal_draws(count, 4));
            const float* g = b.buffer("g", normal_draws(count, 5), normal_draws(count, 6), false);
            const SgdState* state = b.buffer<SgdState>("state", {{0.1f, 0.9f, 3e-4f, 0.5f}},
                                                       {{0.2f, 0.8f, 1e-4f, 0.25f}}, kOnlyRead<SgdState>);
            b.call([=](Stream& stream) { sgd_lookahead(stream, w, buffer, g, count, state); });
          }};
}

OpCase radius_case(float sum, float other) {
  return {join("radius at ", sum), 1, [=](CaseBuilder& b) {
            const float* squares = b.buffer<float>("sum", {sum}, {other}, false);
            float *radius = b.buffer<float>("radius", {-1}, {-2}),
                  *factor = b.buffer<float>("factor", {-1}, {-2});
            b.call([=](Stream& stream) { difference_radius(stream, radius, factor, squares); });
          }};
}

OpCase adam_case(int count) {
  return {join("adam of ", count), 1, [=](CaseBuilder& b) {
            float* w = b.buffer("w", normal_draws(count, 1), normal_draws(count, 2));
            float* m = b.buffer("m", normal_draws(count, 3), normal_draws(count, 4));
            float* v = b.buffer("v", positive_draws(count, 5), positive_draws(count, 6));
            const float* g = b.buffer("g", normal_draws(count, 7), normal_draws(count, 8), false);
            AdamState first, second;
            first.step = 0, second.step = 6, second.lr = 1e-3f;
            AdamState* state = b.buffer<AdamState>(
                "step", {first}, {second},
                std::function<double(const AdamState&)>([](const AdamState& s) { return double(s.step); }));
            b.call([=](Stream& stream) {
              advance_step(stream, state);
              adam_step(stream, w, m, v, g, count, state);
            });
          }};
}

OpCase squares_case(int count, float max_norm) {
  return {join(max_norm > 0 ? "clip scale of " : "sum of squares of ", count, " at ", max_norm),
          double(count), [=](CaseBuilder& b) {
            const float* g = b.buffer("g", normal_draws(count, 1), normal_draws(count, 2), false);
            float* out = b.buffer<float>("out", {-1}, {-2});
            b.call([=](Stream& stream) {
              max_norm > 0 ? clip_scale(stream, out, g, count, max_norm)
                           : sum_of_squares(stream, out, g, count);
            });
          }};
}

OpCase ascent_case(float multiplier, float cost, float rate, float bound) {
  return {join("ascent from ", multiplier, " at ", cost, " of ", bound), 1, [=](CaseBuilder& b) {
            float* lambda = b.buffer<float>("multiplier", {multiplier}, {multiplier + 0.25f});
            const float* now = b.buffer<float>("cost", {cost}, {1.5f * cost}, false);
            b.call([=](Stream& stream) { multiplier_ascent(stream, lambda, now, rate, bound); });
          }};
}

const OpCases optimizer_cases("optimizer", {sgd_case(1), sgd_case(1003), sgd_case(4096), lookahead_case(1),
                                            lookahead_case(1003), lookahead_case(4096), radius_case(25, 0),
                                            radius_case(0, 1e-12f), adam_case(3), adam_case(1036),
                                            squares_case(1, 0), squares_case(5001, 0), squares_case(4096, 5),
                                            squares_case(7, 1000), ascent_case(0.5f, 3, 0.2f, 2),
                                            ascent_case(0.125f, 0.5f, 1, 2), ascent_case(0, 7, 0.05f, 2)});

OpCase augment_case(const std::string& name, int batch, int side, AugmentConfig config) {
  return {name, 1, [=](CaseBuilder& b) {
            std::vector<uint8_t> images;
            Random random(4);
            for (int i = 0; i < 6 * side * side * 3; ++i) images.push_back(uint8_t(random.below(256)));
            std::vector<int> first, second;
            for (int n = 0; n < batch; ++n)
              first.push_back(int(random.below(6))), second.push_back(int(random.below(6)));
            const uint8_t* resident = b.buffer("images", images, images, false);
            const int* indices = b.buffer("indices", first, second, false);
            const uint64_t* step = b.buffer<uint64_t>("step", {1}, {2}, false);
            const std::vector<float> nothing(size_t(batch * side * side * 3));
            float* y = b.buffer("y", nothing, nothing);
            b.call([=](Stream& stream) {
              augment_forward(stream, {y, {batch, side, side, 3}}, resident, indices, config, step);
            });
          }};
}

AugmentConfig augmentation(int padding, bool flip, int cutout) {
  return {padding, flip, cutout, {0.4f, 0.5f, 0.6f}, {0.2f, 0.25f, 0.3f}, 12};
}
const OpCases augment_cases("augment", {augment_case("plain", 2, 5, augmentation(0, false, 0)),
                                        augment_case("crop and flip", 5, 8, augmentation(2, true, 0)),
                                        augment_case("all", 7, 9, augmentation(4, true, 5))});

OpCase labels_case(int batch) {
  return {join("labels of ", batch), 1, [=](CaseBuilder& b) {
            std::vector<int> all, first, second;
            Random random(5);
            for (int i = 0; i < 9; ++i) all.push_back(int(random.below(10)));
            for (int r = 0; r < batch; ++r)
              first.push_back(int(random.below(9))), second.push_back(int(random.below(9)));
            const int *resident = b.buffer("all", all, all, false),
                      *indices = b.buffer("indices", first, second, false);
            int* labels =
                b.buffer("labels", std::vector<int>(size_t(batch), -1), std::vector<int>(size_t(batch), -1));
            b.call([=](Stream& stream) { gather_labels(stream, labels, resident, 9, indices, batch); });
          }};
}
const OpCases labels_cases("augment", {labels_case(1), labels_case(300)});

OpCase shuffle_case(int count, uint64_t draw) {
  return {join(count, " at draw ", draw), 1, [=](CaseBuilder& b) {
            std::vector<int> first, second;
            for (int i = 0; i < count; ++i) first.push_back(1000 + i), second.push_back(5 * i);
            const std::vector<int> nothing(size_t(count), -1);
            const int* indices = b.buffer("indices", first, second, false);
            int* order = b.buffer("order", nothing, nothing);
            const size_t bytes = shuffle_scratch_bytes(Stream(b.tape.device(), 1), count);
            const std::vector<char> room(bytes);
            char* scratch = b.buffer("scratch", room, room, false);
            b.call([=](Stream& stream) { shuffle(stream, order, indices, count, 21, draw, scratch); });
          }};
}
const OpCases index_shuffle_cases("shuffle", {shuffle_case(1, 0), shuffle_case(7, 1), shuffle_case(1030, 1),
                                              shuffle_case(1030, uint64_t{0x45504f43} << 32)});

}  // namespace
}  // namespace lanas::test
