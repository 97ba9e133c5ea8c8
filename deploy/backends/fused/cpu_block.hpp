// The transformer block of policy/block.py: attention and SwiGLU with AdaLN, for one observation.
//
// Shapes: R rows (tokens that run), T tokens that may be attended to, D width, head size 32.
//
// One thread computes it all. A second was tried (columns of each product and heads shared out,
// four barriers a block): with a core for each, ten steps at K = 3 took 1.12 times as long as with
// one, as a barrier costs what half a product gains; on busy cores hundreds of times as long.
#pragma once

#include "cpu_matrix.hpp"
#include "cpu_picture.hpp"

namespace fused {

constexpr int HEAD = 32;

// Shift, 1 + scale and gate of the attention, then of the feed-forward, D floats each; the next
// row's `row` floats later, 0 where all tokens share them.
struct Modulation {
    const float *at;
    long row;
    const float *of(int which, int token, int width) const {
        return at + token * row + long(which) * width;
    }
};

enum { SHIFT_A, SCALE_A, GATE_A, SHIFT_F, SCALE_F, GATE_F };

// Keys and values of up to T tokens in one block of one loop, as tiles read them. Keys: for each
// head panels of VEC tokens, in each the 32 numbers of a head. Values: for each head panels of TILE
// of its 32 numbers, in each the T tokens.
struct Kept {
    static size_t floats(int heads, int tokens) {
        return size_t(heads) * HEAD * (padded(tokens, VEC) + tokens);
    }

    Kept(float *memory, int heads, int tokens)
        : tokens(tokens),
          keys(memory),
          values(memory + size_t(heads) * HEAD * padded(tokens, VEC)) {}

    void put_key(int head, int token, const float *from, int column) const {
        float *to = keys_of(head) + token / VEC * (HEAD * VEC) + token % VEC;
        for (int i = 0; i < TILE; i++) to[(column + i) * VEC] = from[i];
    }

    void put_value(int head, int token, const float *from, int column) const {
        float *to = values_of(head) + (column / TILE * long(tokens) + token) * TILE;
        std::memcpy(to, from, TILE * sizeof(float));
    }

    float *keys_of(int head) const { return keys + long(head) * HEAD * padded(tokens, VEC); }
    float *values_of(int head) const { return values + long(head) * HEAD * tokens; }

    int tokens;
    float *keys, *values;
};

// What a pass writes and nothing reads after it, for up to `rows` tokens, `widest` floats of each.
struct Scratch {
    Scratch(Arena &arena, int rows, int tokens, int width, int widest)
        : attended_to(padded(tokens, VEC)),
          normed(arena.zeros(size_t(rows) * width)),
          queries(arena.zeros(size_t(rows) * width)),
          weights(arena.zeros(size_t(rows) * attended_to)),
          attended(arena.zeros(size_t(rows) * width)),
          inner(arena.zeros(size_t(rows) * widest)),
          pairs(arena.zeros(size_t(rows) * widest / 2)) {}

    int attended_to;
    float *normed, *queries, *weights, *attended, *inner, *pairs;
};

// torch's LayerNorm without weights, then * scale + shift; the padding of `width` is none.
inline void norm(const float *from, const float *scale, const float *shift, int width, float *to) {
    V total = {};
    for (int i = 0; i < width; i += VEC) total += load(from + i);
    const V mean = all(sum(total) / width);
    V squares = {};
    for (int i = 0; i < width; i += VEC) {
        const V off = load(from + i) - mean;
        squares += off * off;
    }
    const V inverse = all(1.0f / std::sqrt(sum(squares) / width + 1e-5f));
    for (int i = 0; i < width; i += VEC)
        store(to + i, (load(from + i) - mean) * inverse * load(scale + i) + load(shift + i));
}

class Block {
 public:
    Block(Arena &arena, Weights &weights, int width, int hidden, bool bfloat16)
        : width_(width),
          heads_(width / HEAD),
          hidden_(padded(hidden, HEAD)),
          bfloat16_(bfloat16),
          queries_keys_values_(arena, weights.next(), 3 * width, width, bfloat16),
          attention_out_(arena, weights.next(), width, width, bfloat16),
          gate_(arena, weights.next(), hidden, width, bfloat16),
          value_(arena, weights.next(), hidden, width, bfloat16),
          feedforward_out_(arena, weights.next(), width, hidden, bfloat16) {}

    // Floats of a token between the two halves of the feed-forward: padded with zeros.
    int hidden() const { return hidden_; }

    // tokens (R, D), changed in place. Their keys and values are put into `kept` from `first` on;
    // bias (T, padded to VEC) is added to the logits. `only_keep` leaves the tokens as they are:
    // nothing reads them after the last loop.
    void run(Scratch &scratch, float *tokens, int rows, const Modulation &modulation,
             const Kept &kept, int first, const float *bias, bool only_keep = false) const {
        normalize(scratch, tokens, rows, modulation, SHIFT_A);
        project(scratch, rows, kept, first, only_keep);
        if (only_keep) return;
        for (int head = 0; head < heads_; head++) attend(scratch, rows, kept, head, bias);
        add(attention_out_, prepared(scratch, attention_out_, scratch.attended, width_, rows), rows,
            tokens, modulation, GATE_A);
        normalize(scratch, tokens, rows, modulation, SHIFT_F);
        const Rows normed = prepared(scratch, gate_, scratch.normed, width_, rows);
        gate_.multiply(normed, rows, [&](int row, int column, const float *values) {
            std::memcpy(scratch.inner + long(row) * hidden_ + column, values, TILE * sizeof(float));
        });
        value_.multiply(normed, rows, [&](int row, int column, const float *values) {
            float *to = scratch.inner + long(row) * hidden_ + column;
            for (int i = 0; i < TILE; i += VEC)
                store(to + i, silu(load(to + i)) * load(values + i));
        });
        add(feedforward_out_, prepared(scratch, feedforward_out_, scratch.inner, hidden_, rows),
            rows, tokens, modulation, GATE_F);
    }

 private:
    void normalize(Scratch &scratch, const float *tokens, int rows, const Modulation &modulation,
                   int shift) const {
        for (int m = 0; m < rows; m++)
            norm(tokens + long(m) * width_, modulation.of(shift + 1, m, width_),
                 modulation.of(shift, m, width_), width_, scratch.normed + long(m) * width_);
    }

    // Rows of `stride` floats as `matrix` reads them.
    Rows prepared(Scratch &scratch, const Matrix &matrix, const float *from, int stride,
                  int rows) const {
        if (!bfloat16_) return {from, stride, matrix.length};
        for (int i = 0; i < rows * stride; i += VEC)
            store_pairs(scratch.pairs + i / 2, load(from + i));
        return {scratch.pairs, stride / 2, matrix.length};
    }

    void project(Scratch &scratch, int rows, const Kept &kept, int first, bool only_keep) const {
        const Rows normed = prepared(scratch, queries_keys_values_, scratch.normed, width_, rows);
        const auto put = [&](int row, int column, const float *values) {
            const int which = column / width_, head = column % width_ / HEAD,
                      inside = column % HEAD;
            if (which == 0)
                std::memcpy(scratch.queries + long(row) * width_ + column, values,
                            TILE * sizeof(float));
            else if (which == 1)
                kept.put_key(head, first + row, values, inside);
            else
                kept.put_value(head, first + row, values, inside);
        };
        const int queries = width_ / TILE;  // panels that nothing reads where tokens only keep
        queries_keys_values_.multiply(normed, rows, put, only_keep ? queries : 0);
    }

    // Softmax attention of one head. Queries are scaled: their weights are.
    void attend(Scratch &scratch, int rows, const Kept &kept, int head, const float *bias) const {
        const int wide = scratch.attended_to;
        float *weights = scratch.weights;
        const Rows queries{scratch.queries + head * HEAD, width_, HEAD};
        for (int t = 0; t < wide; t += VEC)
            by_tiles(TILES<Float32, VEC>, queries, rows, kept.keys_of(head) + long(t) * HEAD, VEC,
                     [&](int row, const float *logits) {
                         store(weights + long(row) * wide + t, load(logits) + load(bias + t));
                     });
        for (int m = 0; m < rows; m++) {
            float *row = weights + long(m) * wide;
            V most = load(row);
            for (int t = VEC; t < wide; t += VEC) most = larger(most, load(row + t));
            const V peak = all(largest(most));
            V total = {};
            for (int t = 0; t < wide; t += VEC) {
                const V weight = exponential(load(row + t) - peak);
                store(row + t, weight);
                total += weight;
            }
            const V share = all(1.0f / sum(total));
            for (int t = 0; t < wide; t += VEC) store(row + t, load(row + t) * share);
        }
        const Rows shares{weights, wide, kept.tokens};
        for (int c = 0; c < HEAD; c += TILE)
            by_tiles(TILES<Float32, TILE>, shares, rows,
                     kept.values_of(head) + long(c) * kept.tokens, TILE,
                     [&](int row, const float *values) {
                         float *to = scratch.attended + long(row) * width_ + head * HEAD + c;
                         std::memcpy(to, values, TILE * sizeof(float));
                     });
    }

    // tokens += gate * (from by matrix).
    void add(const Matrix &matrix, const Rows &from, int rows, float *tokens,
             const Modulation &modulation, int gate) const {
        matrix.multiply(from, rows, [&](int row, int column, const float *values) {
            float *token = tokens + long(row) * width_ + column;
            const float *open = modulation.of(gate, row, width_) + column;
            for (int i = 0; i < TILE; i += VEC)
                store(token + i, load(token + i) + load(open + i) * load(values + i));
        });
    }

    int width_, heads_, hidden_;
    bool bfloat16_;
    Matrix queries_keys_values_, attention_out_, gate_, value_, feedforward_out_;
};

}  // namespace fused
