// Pictures, and the layers of a convolutional stem (policy/encoders/stem.py).
//
// Pictures lie by rows, pixels, channels, with a border of zeros that is written once: a
// convolution's window is then as many contiguous runs as it is high, which is what a tile reads.
#pragma once

#include <vector>

#include "cpu_matrix.hpp"

namespace fused {

// Weights in the order in which the Python side lists them.
class Weights {
 public:
    explicit Weights(const float *const *tensors) : tensors_(tensors) {}
    const float *next() { return *tensors_++; }

 private:
    const float *const *tensors_;
};

// In float32, or in pairs of bfloat16 where channels are even.
struct Picture {
    Picture(Arena &arena, int height, int width, int channels, int border, bool pairs = false)
        : height(height),
          width(width),
          channels(channels),
          pairs(pairs),
          each(pairs ? channels / 2 : channels),
          line(long(width + 2 * border) * each),
          inside(arena.zeros(size_t(height + 2 * border) * line) + border * (line + each)) {}

    float *pixel(int y, int x) const { return inside + y * line + long(x) * each; }

    // The values of VEC channels from `channel` on.
    void put(int y, int x, int channel, V values) const {
        if (pairs)
            store_pairs(pixel(y, x) + channel / 2, values);
        else
            store(pixel(y, x) + channel, values);
    }

    int height, width, channels;
    bool pairs;
    int each;   // floats of a pixel
    long line;  // and from it to the one below
    float *inside;
};

// A convolution with a border of half its size, or of none.
class Convolution {
 public:
    // weights: (outputs, size, size, inputs), then biases (outputs). With `pairs` it reads pictures
    // in bfloat16, whose channels an odd number of inputs is padded to.
    Convolution(Arena &arena, Weights &weights, int outputs, int inputs, int size, int stride,
                int border, bool pairs = false)
        : channels(pairs ? padded(inputs, 4) : inputs),
          matrix(arena, spread(weights.next(), outputs * size * size, inputs).data(), outputs,
                 size * size * channels, pairs),
          bias(arena.copy(weights.next(), outputs)),
          size_(size),
          stride_(stride),
          border_(border) {}

    int out(int side) const { return (side + 2 * border_ - size_) / stride_ + 1; }

    // `from` has a border of `border` or more; `to` is out(height) x out(width), in float32.
    void run(const Picture &from, const Picture &to) const {
        for (int y = 0; y < to.height; y++) {
            const Rows rows{from.pixel(y * stride_ - border_, -border_), long(stride_) * from.each,
                            size_ * from.each, size_, from.line};
            matrix.multiply(rows, to.width, [&](int x, int column, const float *values) {
                float *pixel = to.pixel(y, x) + column;
                for (int i = 0; i < matrix.width; i += VEC)
                    store(pixel + i, load(values + i) + load(bias + column + i));
            });
        }
    }

    int channels;  // of the picture that it reads
    Matrix matrix;
    const float *bias;

 private:
    // Rows of `inputs` numbers as rows of `channels`, the rest zeros.
    std::vector<float> spread(const float *from, int rows, int inputs) const {
        std::vector<float> to(size_t(rows) * channels);
        for (int m = 0; m < rows; m++)
            std::memcpy(&to[size_t(m) * channels], from + size_t(m) * inputs,
                        inputs * sizeof(float));
        return to;
    }

    int size_, stride_, border_;
};

// torch's GroupNorm, then SiLU: the mean and the variance over a frame's pixels and a group's
// channels.
class NormedSilu {
 public:
    NormedSilu(Arena &arena, Weights &weights, int channels, int groups)
        : channels_(channels),
          groups_(groups),
          scale_(arena.copy(weights.next(), channels)),
          shift_(arena.copy(weights.next(), channels)) {}

    void run(const Picture &from, const Picture &to) const {
        alignas(64) float mean[MAX_CHANNELS], scale[MAX_CHANNELS], shift[MAX_CHANNELS];
        by_groups(from, mean, [](V x, V) { return x; }, nullptr);
        by_groups(from, scale, [](V x, V center) { return (x - center) * (x - center); }, mean);
        for (int c = 0; c < channels_; c++) {
            scale[c] = scale_[c] / std::sqrt(scale[c] + 1e-5f);
            shift[c] = shift_[c] - mean[c] * scale[c];
        }
        for (int y = 0; y < from.height; y++)
            for (int x = 0; x < from.width; x++)
                for (int c = 0; c < channels_; c += VEC) {
                    const V normed = load(from.pixel(y, x) + c) * load(scale + c) + load(shift + c);
                    to.put(y, x, c, silu(normed));
                }
    }

    static constexpr int MAX_CHANNELS = 64;

 private:
    // The mean of `of(x, center)` over each group, for each of its channels.
    template <class Of>
    void by_groups(const Picture &from, float *means, Of &&of, const float *centers) const {
        for (int c = 0; c < channels_; c += VEC) {
            const V center = centers ? load(centers + c) : V{};
            V total = {};
            for (int y = 0; y < from.height; y++) {  // by lines: shorter sums round less
                V line = {};
                for (int x = 0; x < from.width; x++) line += of(load(from.pixel(y, x) + c), center);
                total += line;
            }
            store(means + c, total);
        }
        const int each = channels_ / groups_;
        for (int g = 0; g < channels_; g += each) {
            float total = 0;
            for (int c = g; c < g + each; c++) total += means[c];
            for (int c = g; c < g + each; c++) means[c] = total / (each * from.height * from.width);
        }
    }

    int channels_, groups_;
    const float *scale_, *shift_;
};

}  // namespace fused
