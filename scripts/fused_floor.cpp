// What limits deploy/backends/fused on this CPU, for scripts/bench_fused.py, which compiles and
// asks it.
//
// Arguments: the sizes of a policy with keypoint encoders. Then one question a line, one answer in
// seconds (or a rate) a line:
//     peak BF16            operations a second of multiply-adds that wait for nothing
//     read BYTES           bytes a second, read again and again from the level of cache they fit in
//     products K S BF16    the chunk's matrix products and convolutions alone, at their shapes and
//     on
//                          their weights, in the same tiles: no norm, no softmax, no activation

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "cpu_matrix.hpp"
#include "cpu_picture.hpp"

using namespace fused;

namespace {

// Of this process's CPU: see bench_fused.py.
double now() {
    timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return double(at.tv_sec) + 1e-9 * double(at.tv_nsec);
}

// The fastest of some runs: whatever else the machine does only slows them.
template <class Job>
double fastest(int runs, const Job &job) {
    double best = 1e9;
    for (int i = 0; i < runs; i++) {
        const double began = now();
        job();
        best = std::min(best, now() - began);
    }
    return best;
}

template <class Math>
double peak(int operations) {
    constexpr int CHAINS = 12, ROUNDS = 20000;
    V sums[CHAINS] = {};
    const V weights = in_register(all(0.5f));
    const double seconds = fastest(50, [&] {
        for (int i = 0; i < ROUNDS; i++)
            for (int c = 0; c < CHAINS; c++)
                sums[c] = in_register(Math::add_product(sums[c], weights, 0.5f));
    });
    volatile float used = 0;
    for (const V &each : sums) used = used + each[0];
    return double(ROUNDS) * CHAINS * VEC * operations / seconds;
}

double read(Arena &arena, size_t bytes) {
    const size_t floats = bytes / 4 / (8 * VEC) * (8 * VEC);
    const float *memory = arena.zeros(floats);
    volatile float used = 0;
    const double seconds = fastest(200, [&] {
        V sums[8] = {};
        for (size_t i = 0; i < floats; i += 8 * VEC)
            for (int j = 0; j < 8; j++) sums[j] += load(memory + i + j * VEC);
        for (const V &each : sums) used = used + each[0];
    });
    return floats * 4 / seconds;
}

struct Policy {
    int width, hidden, blocks, cameras, side, observed, rows, together;
};

class Products {
 public:
    Products(Arena &arena, const Policy &sizes, bool bfloat16) : sizes_(sizes) {
        const int width = sizes.width, hidden = sizes.hidden;
        const float *numbers = arena.zeros(size_t(4) * width * std::max(width, hidden) + 65536);
        const std::vector<const float *> tensors(64, numbers);
        Weights weights(tensors.data());
        const int channels[] = {3, 16, 32, 64, 64}, kernels[] = {5, 3, 3, 1};
        int side = sizes.side;
        for (int i = 0; i < 4; i++) {
            const int border = kernels[i] / 2, stride = i < 3 ? 2 : 1;
            layers_.emplace_back(arena, weights, channels[i + 1], channels[i], kernels[i], stride,
                                 border, bfloat16);
            const Convolution &layer = layers_.back();
            maps_.emplace_back(arena, side, side, layer.channels, border, bfloat16);
            side = layer.out(side);
            sums_.emplace_back(arena, side, side, channels[i + 1], 0);
        }
        const auto add = [&](auto &to, int outputs, int inputs, bool pairs) {
            to.emplace_back(arena, numbers, outputs, inputs, pairs);
        };
        add(project_, width, 48, false);
        add(ends_, width, sizes.together, false);
        add(ends_, sizes.together, width, false);
        for (int i = 0; i < sizes.blocks; i++) {
            add(keep_, 2 * width, width, bfloat16);
            for (const auto &[outputs, inputs] : {std::pair{3 * width, width},
                                                  {width, width},
                                                  {hidden, width},
                                                  {hidden, width},
                                                  {width, hidden}})
                add(block_, outputs, inputs, bfloat16);
        }
        input_ = arena.zeros(size_t(64) * padded(std::max(width, hidden), 32));
        output_ = arena.zeros(TILE);
    }

    void run(int loops, int steps) {
        for (int c = 0; c < sizes_.cameras; c++) {
            for (size_t i = 0; i < layers_.size(); i++) layers_[i].run(maps_[i], sums_[i]);
            multiply(project_, 4);
        }
        for (int loop = 0; loop + 1 < loops; loop++) multiply(block_, sizes_.observed);
        for (int i = 0; i + 1 < sizes_.blocks; i++) multiply(block_, sizes_.observed, 5 * i, 5);
        multiply(keep_, sizes_.observed, int(keep_.size()) - 1, 1);
        for (int step = 0; step < steps; step++) {
            multiply(ends_, sizes_.rows);
            for (int loop = 0; loop < loops; loop++) multiply(block_, sizes_.rows);
        }
    }

 private:
    void multiply(const std::vector<Matrix> &matrices, int rows, int first = 0,
                  int count = 1 << 20) {
        const int last = std::min<int>(first + count, int(matrices.size()));
        for (int i = first; i < last; i++) {
            const Matrix &matrix = matrices[i];
            matrix.multiply({input_, padded(matrix.length, 16), matrix.length}, rows,
                            [&](int, int, const float *values) {
                                std::memcpy(output_, values, matrix.width * sizeof(float));
                            });
        }
    }

    Policy sizes_;
    std::vector<Convolution> layers_;
    std::vector<Picture> maps_, sums_;
    std::vector<Matrix> project_, ends_, keep_, block_;
    float *input_, *output_;
};

}  // namespace

int main(int count, char **arguments) {
    if (count != 9) return 2;
    int given[8];
    for (int i = 0; i < 8; i++) given[i] = std::atoi(arguments[i + 1]);
    const Policy sizes{given[0], given[1], given[2], given[3],
                       given[4], given[5], given[6], given[7]};
    Arena arena;
    std::vector<std::unique_ptr<Products>> products;
    products.push_back(std::make_unique<Products>(arena, sizes, false));
#if defined(__AVX512BF16__)
    products.push_back(std::make_unique<Products>(arena, sizes, true));
#endif
    char line[256];
    while (std::fgets(line, sizeof line, stdin)) {
        char what[32] = "";
        long a = 0, b = 0, c = 0;
        std::sscanf(line, "%31s %ld %ld %ld", what, &a, &b, &c);
        double answer = -1;  // there is no such thing on this CPU
        if (std::string(what) == "peak") {
            if (a == 0) answer = peak<Float32>(2);
#if defined(__AVX512BF16__)
            if (a == 1) answer = peak<BFloat16>(4);
#endif
        } else if (std::string(what) == "read") {
            answer = read(arena, size_t(a));
        } else if (c < long(products.size())) {
            answer = fastest(20, [&] { products[c]->run(int(a), int(b)); });
        }
        std::printf("%.9g\n", answer);
        std::fflush(stdout);
    }
    return 0;
}
