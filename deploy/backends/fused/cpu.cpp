// The policy of policy/looped_dit.py for one observation at a time, and the C functions that Python
// calls.
//
// Shapes: N observation tokens, R action tokens, T = N + R, D width, H actions of A numbers, K
// loops. Everything is in normalised units but frames and proprio. What depends on the step's time
// alone (modulations) and what an instruction says comes from Python, which keeps it between calls.
// Nothing is allocated in a call. A model is for one caller at a time.

#include "cpu_block.hpp"
#include "cpu_camera.hpp"
#include "cpu_matrix.hpp"

namespace fused {

// Mirrored by Sizes in cpu_library.py.
struct Sizes {
    int32_t width, hidden, blocks, action_blocks, loops, history, cameras, encoder, detail, proprio,
        instruction, horizon, group, actions, injection, bfloat16;
};

// One denoising step, of sample s and output o: mirrored by sampler.py.
//     c = clip(s * chunk_of_sample + o * chunk_of_output)
//     s <- s * keep + o * move + c * take
struct Step {
    float chunk_of_sample, chunk_of_output, clip, keep, move, take;
};

class Model {
 public:
    Model(const Sizes &sizes, const int32_t *frames, const float *const *tensors)
        : sizes_(sizes), rows_(sizes.horizon / sizes.group) {
        Weights weights(tensors);
        const int width = sizes.width;
        int of_a_step = 1;
        for (int c = 0; c < sizes.cameras; c++) {
            cameras_.emplace_back(arena_, weights, Encoder(sizes.encoder), sizes.detail,
                                  frames[2 * c], frames[2 * c + 1], width, sizes.bfloat16 != 0);
            of_a_step += cameras_.back().tokens;
        }
        of_a_step_ = of_a_step;
        observed_ = of_a_step * sizes.history + sizes.instruction;
        tokens_ = observed_ + rows_;
        placed_ = arena_.copy(weights.next(), size_t(of_a_step) * sizes.history * width);
        proprio_mean_ = arena_.copy(weights.next(), sizes.proprio);
        proprio_spread_ = arena_.copy(weights.next(), sizes.proprio);
        proprio_bound_ = arena_.copy(weights.next(), sizes.proprio);
        proprio_ = std::make_unique<Matrix>(arena_, weights.next(), width, sizes.proprio);
        const int together = sizes.group * sizes.actions;
        action_in_ = std::make_unique<Matrix>(arena_, weights.next(), width, together);
        action_placed_ = arena_.copy(weights.next(), size_t(rows_) * width);
        embedding_ = arena_.copy(weights.next(), size_t(sizes.loops) * width);
        if (sizes.injection) carry_ = arena_.copy(weights.next(), width);
        for (int i = 0; i < sizes.blocks; i++)
            blocks_.emplace_back(arena_, weights, width, sizes.hidden, sizes.bfloat16 != 0);
        for (int i = 0; i < sizes.action_blocks; i++)
            action_blocks_.emplace_back(arena_, weights, width, sizes.hidden, sizes.bfloat16 != 0);
        clean_ = arena_.copy(weights.next(), size_t(sizes.blocks) * 6 * width);
        action_clean_ = arena_.copy(weights.next(), size_t(sizes.blocks) * 6 * width);
        out_scale_ = arena_.copy(weights.next(), width);
        out_shift_ = arena_.copy(weights.next(), width);
        action_out_ = std::make_unique<Matrix>(arena_, weights.next(), together, width);
        action_bias_ = arena_.copy(weights.next(), together);

        const int most = std::max(observed_, rows_), hidden = blocks_[0].hidden();
        scratch_ = std::make_unique<Scratch>(arena_, most, tokens_, width, std::max(width, hidden));
        state_ = arena_.zeros(size_t(most) * width);
        first_ = arena_.zeros(size_t(most) * width);
        bias_ = arena_.zeros(padded(tokens_, VEC));
        kept_ = arena_.zeros(context_floats(sizes.loops));
        shown_ = arena_.zeros(size_t(rows_) * together);
        felt_ = arena_.zeros(sizes.proprio);
        mixed_ = arena_.zeros(size_t(rows_) * sizes.blocks * 6 * width);
    }

    // A context: the bias (T, padded) of what the action tokens attend to, then Kept for each loop
    // and block in turn, with room for the action tokens' own.
    size_t context_floats(int loops) const {
        return padded(tokens_, VEC) + loops * sizes_.blocks * slot();
    }

    void encode(const uint8_t *const *frames, const float *proprio, const float *instruction,
                const uint8_t *available, int loops, float *context) {
        std::memset(context, 0, context_floats(loops) * sizeof(float));
        set_biases(available, context);
        for (int c = 0; c < sizes_.cameras; c++) see(c, frames);
        feel(proprio, instruction);
        for (int loop = 0; loop < loops; loop++) {
            begin_loop(loop, observed_);
            for (int i = 0; i < sizes_.blocks; i++) {
                const bool last = loop == loops - 1 && i == sizes_.blocks - 1;
                run_block(blocks_, loop, i, observed_, {clean_, 0}, context, 0, bias_, last);
            }
        }
    }

    // `share` (R) and `known` (H): how much of a token is committed, and which actions are; null
    // where nothing can be. Known actions are in `sample` (H, A) and stay. `visible` (A) is 0 for
    // actions that the model is not shown unless they are known. Leaves the last `output` (H, A).
    void denoise(const float *context, int loops, const float *modulations, const Step *schedule,
                 int steps, const float *share, const uint8_t *known, const float *visible,
                 float *sample, float *output) {
        std::memcpy(kept_, context, context_floats(loops) * sizeof(float));
        const long modulation = long(sizes_.blocks) * 6 * sizes_.width;
        const std::vector<Block> &blocks = sizes_.action_blocks ? action_blocks_ : blocks_;
        for (int s = 0; s < steps; s++) {
            Modulation now{modulations + s * modulation, 0};
            if (share) {
                mix(now.at, share, modulation);
                now = {mixed_, modulation};
            }
            read_sample(sample, known, visible);
            for (int loop = 0; loop < loops; loop++) {
                begin_loop(loop, rows_);
                for (int i = 0; i < sizes_.blocks; i++)
                    run_block(blocks, loop, i, rows_, now, kept_, observed_, kept_, false);
            }
            write_output(output);
            move(schedule[s], output, known, sample);
        }
    }

 private:
    size_t slot() const { return Kept::floats(sizes_.width / HEAD, tokens_); }

    void set_biases(const uint8_t *available, float *bias) {
        for (int t = 0; t < padded(tokens_, VEC); t++) {
            const bool there = t < observed_ ? !available || available[t] : t < tokens_;
            bias[t] = there ? 0.0f : -INFINITY;
            bias_[t] =
                t < observed_ ? bias[t] : -INFINITY;  // the observation does not see the actions
        }
    }

    // One camera's tokens of every observed step.
    void see(int c, const uint8_t *const *frames) {
        int first = 0;
        for (int i = 0; i < c; i++) first += cameras_[i].tokens;
        for (int step = 0; step < sizes_.history; step++)
            cameras_[c].run(frames[step * sizes_.cameras + c],
                            [&](int token, int column, const float *values) {
                                place(step * of_a_step_ + first + token, column, values);
                            });
    }

    void feel(const float *proprio, const float *instruction) {
        for (int step = 0; step < sizes_.history; step++) {
            for (int i = 0; i < sizes_.proprio; i++) {
                const float normed =
                    (proprio[step * sizes_.proprio + i] - proprio_mean_[i]) / proprio_spread_[i];
                felt_[i] = std::min(std::max(normed, -proprio_bound_[i]), proprio_bound_[i]);
            }
            const int token = (step + 1) * of_a_step_ - 1;
            proprio_->multiply(
                {felt_, 0, sizes_.proprio}, 1,
                [&](int, int column, const float *values) { place(token, column, values); });
        }
        if (sizes_.instruction)
            std::memcpy(state_ + long(observed_ - 1) * sizes_.width, instruction,
                        sizes_.width * sizeof(float));
    }

    void place(int token, int column, const float *values) {
        const long at = long(token) * sizes_.width + column;
        for (int i = 0; i < TILE; i += VEC)
            store(state_ + at + i, load(values + i) + load(placed_ + at + i));
    }

    // What a loop starts from: the state, mixed with what the first loop was given, and its
    // embedding.
    void begin_loop(int loop, int rows) {
        const int width = sizes_.width;
        if (carry_ && loop == 0) std::memcpy(first_, state_, size_t(rows) * width * sizeof(float));
        for (int m = 0; m < rows; m++)
            for (int i = 0; i < width; i += VEC) {
                float *at = state_ + long(m) * width + i;
                V state = load(at);
                if (carry_ && loop) {
                    const V start = load(first_ + long(m) * width + i);
                    state = start + load(carry_ + i) * (state - start);
                }
                store(at, state + load(embedding_ + long(loop) * width + i));
            }
    }

    void run_block(const std::vector<Block> &blocks, int loop, int i, int rows,
                   const Modulation &modulation, float *context, int first, const float *bias,
                   bool only_keep) {
        float *slots = context + padded(tokens_, VEC);
        const Kept kept(slots + (loop * sizes_.blocks + i) * slot(), sizes_.width / HEAD, tokens_);
        const Modulation own{modulation.at + long(i) * 6 * sizes_.width, modulation.row};
        blocks[i].run(*scratch_, state_, rows, own, kept, first, bias, only_keep);
    }

    // Each token's modulation: between that of the step's time and that of the end, as much of it
    // is known.
    void mix(const float *now, const float *share, long count) {
        for (int m = 0; m < rows_; m++)
            for (long i = 0; i < count; i++)
                mixed_[m * count + i] = now[i] + share[m] * (action_clean_[i] - now[i]);
    }

    void read_sample(const float *sample, const uint8_t *known, const float *visible) {
        const int size = sizes_.actions, width = sizes_.width, together = sizes_.group * size;
        for (int h = 0; h < sizes_.horizon; h++)
            for (int i = 0; i < size; i++) {
                const bool seen = (known && known[h]) || visible[i] != 0;
                shown_[h * size + i] = seen ? sample[h * size + i] : 0.0f;
            }
        action_in_->multiply(
            {shown_, together, together}, rows_, [&](int row, int column, const float *values) {
                const long at = long(row) * width + column;
                for (int i = 0; i < TILE; i += VEC)
                    store(state_ + at + i, load(values + i) + load(action_placed_ + at + i));
            });
    }

    void write_output(float *output) {
        const int width = sizes_.width, together = sizes_.group * sizes_.actions;
        float *normed = scratch_->normed;
        for (int m = 0; m < rows_; m++)
            norm(state_ + long(m) * width, out_scale_, out_shift_, width, normed + long(m) * width);
        action_out_->multiply(
            {normed, width, width}, rows_, [&](int row, int column, const float *values) {
                const int there = std::min(action_out_->width, together - column);
                for (int i = 0; i < there; i++)
                    output[row * together + column + i] = values[i] + action_bias_[column + i];
            });
    }

    void move(const Step &step, const float *output, const uint8_t *known, float *sample) const {
        for (int h = 0; h < sizes_.horizon; h++) {
            if (known && known[h]) continue;
            for (int i = h * sizes_.actions; i < (h + 1) * sizes_.actions; i++) {
                const float chunk =
                    sample[i] * step.chunk_of_sample + output[i] * step.chunk_of_output;
                const float bounded = std::min(std::max(chunk, -step.clip), step.clip);
                sample[i] = sample[i] * step.keep + output[i] * step.move + bounded * step.take;
            }
        }
    }

    const Sizes sizes_;
    const int rows_;
    int of_a_step_, observed_, tokens_;  // observation tokens of one step and of all; T
    Arena arena_;
    std::vector<Camera> cameras_;
    std::vector<Block> blocks_, action_blocks_;  // the latter empty where the first are for both
    std::unique_ptr<Matrix> proprio_, action_in_, action_out_;
    const float *placed_, *proprio_mean_, *proprio_spread_, *proprio_bound_, *action_placed_,
        *embedding_, *carry_ = nullptr, *clean_, *action_clean_, *out_scale_, *out_shift_,
        *action_bias_;
    std::unique_ptr<Scratch> scratch_;
    float *state_, *first_, *bias_, *kept_, *shown_, *felt_, *mixed_;
};

}  // namespace fused

extern "C" {

// 1 where this CPU multiplies pairs of bfloat16.
int fused_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Null where there is no memory for it, or no thread.
void *fused_create(const fused::Sizes *sizes, const int32_t *frames, const float *const *tensors) {
    try {
        return new fused::Model(*sizes, frames, tensors);
    } catch (const std::exception &) {
        return nullptr;
    }
}

void fused_destroy(void *model) { delete static_cast<fused::Model *>(model); }

int64_t fused_context_floats(void *model, int loops) {
    return int64_t(static_cast<fused::Model *>(model)->context_floats(loops));
}

void fused_encode(void *model, const uint8_t *const *frames, const float *proprio,
                  const float *instruction, const uint8_t *available, int loops, float *context) {
    static_cast<fused::Model *>(model)->encode(frames, proprio, instruction, available, loops,
                                               context);
}

void fused_denoise(void *model, const float *context, int loops, const float *modulations,
                   const fused::Step *schedule, int steps, const float *share, const uint8_t *known,
                   const float *visible, float *sample, float *output) {
    static_cast<fused::Model *>(model)->denoise(context, loops, modulations, schedule, steps, share,
                                                known, visible, sample, output);
}
}
