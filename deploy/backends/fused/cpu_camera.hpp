// A camera's frame as tokens: policy/encoders/{keypoints,pooled,patches}.py.
#pragma once

#include <memory>
#include <vector>

#include "cpu_picture.hpp"

namespace fused {

enum Encoder : int32_t { KEYPOINTS, POOLED, PATCHES };

class Camera {
 public:
    // `detail`: cells along a side (POOLED), pixels along a patch's side (PATCHES). In bfloat16 are
    // the convolutions; patches are float32.
    Camera(Arena &arena, Weights &weights, Encoder encoder, int detail, int height, int width,
           int token_width, bool bfloat16)
        : encoder_(encoder),
          detail_(detail),
          frame_(arena, height, width, bfloat16 && encoder != PATCHES ? 4 : 3,
                 encoder == PATCHES ? 0 : 2, bfloat16 && encoder != PATCHES) {
        for (int i = 0; i < 256; i++) bytes_[i] = to_bfloat16(i * (1 / 127.5f) - 1.0f);
        if (encoder == PATCHES) {
            layers_.emplace_back(arena, weights, token_width, 3, detail, detail, 0);
            tokens = layers_[0].out(height) * layers_[0].out(width);
            maps_.emplace_back(arena, layers_[0].out(height), layers_[0].out(width),
                               layers_[0].matrix.panels * layers_[0].matrix.width, 0);
            return;
        }
        const int channels[] = {16, 32, CHANNELS}, groups[] = {4, 8, 8}, sizes[] = {5, 3, 3};
        int h = height, w = width, inputs = 3;
        for (int i = 0; i < 3; i++) {
            layers_.emplace_back(arena, weights, channels[i], inputs, sizes[i], 2, sizes[i] / 2,
                                 bfloat16);
            norms_.emplace_back(arena, weights, channels[i], groups[i]);
            h = layers_[i].out(h), w = layers_[i].out(w), inputs = channels[i];
            maps_.emplace_back(arena, h, w, inputs, 0);
            const bool convolved = i < 2 || encoder == KEYPOINTS;
            activations_.emplace_back(arena, h, w, inputs, i < 2 ? 1 : 0, bfloat16 && convolved);
        }
        int features = CHANNELS;
        tokens = detail * detail;
        if (encoder == KEYPOINTS) {
            layers_.emplace_back(arena, weights, CHANNELS, CHANNELS, 1, 1, 0, bfloat16);
            maps_.emplace_back(arena, h, w, CHANNELS, 0);
            tokens = TOKENS;
            features = 3 * CHANNELS / TOKENS;
        }
        project_ = std::make_unique<Matrix>(arena, weights.next(), token_width, features);
        read_ = arena.zeros(size_t(tokens) * features);
    }

    // frame (height, width, 3), put(token, column, values): what the positions and biases are added
    // to, `values` as wide as a panel.
    template <class Put>
    void run(const uint8_t *frame, Put &&put) {
        take(frame);
        if (encoder_ == PATCHES) {
            layers_[0].run(frame_, maps_[0]);
            const Picture &map = maps_[0];
            for (int t = 0; t < tokens; t++)
                for (int c = 0; c < map.channels; c += TILE)
                    put(t, c, map.inside + t * map.channels + c);
            return;
        }
        const Picture *from = &frame_;
        for (int i = 0; i < 3; i++) {
            layers_[i].run(*from, maps_[i]);
            norms_[i].run(maps_[i], activations_[i]);
            from = &activations_[i];
        }
        if (encoder_ == KEYPOINTS) {
            layers_[3].run(*from, maps_[3]);
            find_keypoints(maps_[3]);
        } else {
            pool(*from);
        }
        const int features = project_->inputs;
        project_->multiply({read_, features, features}, tokens, put);
    }

    int tokens = 0;

 private:
    static constexpr int CHANNELS = 64, TOKENS = 4;

    // Pixels from [0, 255] to [-1, 1].
    void take(const uint8_t *frame) {
        for (int y = 0; y < frame_.height; y++) {
            // Bytes may be anything's, floats too, unless it is said that they are not.
            const uint8_t *__restrict line = frame + size_t(y) * frame_.width * 3;
            float *__restrict to = frame_.pixel(y, 0);
            if (!frame_.pairs) {
                for (int i = 0; i < frame_.width * 3; i++) to[i] = line[i] * (1 / 127.5f) - 1.0f;
                continue;
            }
            for (int x = 0; x < frame_.width; x++) {
                const uint16_t pixel[4] = {bytes_[line[3 * x]], bytes_[line[3 * x + 1]],
                                           bytes_[line[3 * x + 2]], 0};
                std::memcpy(to + 2 * x, pixel, sizeof pixel);
            }
        }
    }

    // torch's linspace(-1, 1, count).
    static float place(int i, int count) {
        if (count == 1) return -1.0f;
        const float step = 2.0f / (count - 1);
        return i < count / 2 ? -1.0f + i * step : 1.0f - (count - 1 - i) * step;
    }

    // Expected x and y of each channel under its softmax over the pixels, and a tenth of its
    // maximum.
    void find_keypoints(const Picture &map) {
        for (int c = 0; c < CHANNELS; c += VEC) {
            V strongest = all(-INFINITY), total = {}, total_x = {}, total_y = {};
            for (int y = 0; y < map.height; y++)
                for (int x = 0; x < map.width; x++)
                    strongest = larger(strongest, load(map.pixel(y, x) + c));
            for (int y = 0; y < map.height; y++) {
                V line = {}, line_x = {};
                for (int x = 0; x < map.width; x++) {
                    const V weight = exponential(load(map.pixel(y, x) + c) - strongest);
                    line += weight;
                    line_x += weight * place(x, map.width);
                }
                total += line, total_x += line_x, total_y += line * place(y, map.height);
            }
            const V each[3] = {total_x / total, total_y / total, strongest * 0.1f};
            for (int i = 0; i < 3; i++)
                for (int lane = 0; lane < VEC; lane++) read_[(c + lane) * 3 + i] = each[i][lane];
        }
    }

    // torch's AdaptiveAvgPool2d(detail): cells may share a line where sizes do not divide.
    void pool(const Picture &map) {
        const int n = detail_;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                const int top = i * map.height / n, bottom = ((i + 1) * map.height + n - 1) / n;
                const int left = j * map.width / n, right = ((j + 1) * map.width + n - 1) / n;
                for (int c = 0; c < CHANNELS; c += VEC) {
                    V total = {};
                    for (int y = top; y < bottom; y++)
                        for (int x = left; x < right; x++) total += load(map.pixel(y, x) + c);
                    store(&read_[(i * n + j) * CHANNELS + c],
                          total / float((bottom - top) * (right - left)));
                }
            }
    }

    Encoder encoder_;
    int detail_;
    Picture frame_;
    uint16_t bytes_[256];  // as bfloat16
    std::vector<Convolution> layers_;
    std::vector<NormedSilu> norms_;
    std::vector<Picture> maps_, activations_;
    std::unique_ptr<Matrix> project_;
    float *read_ = nullptr;
};

}  // namespace fused
