"""All denoising steps of all loops in one launch on an NVIDIA GPU, in Triton.

P programs work on each observation together, and each of them holds the observation's action tokens
and its sample whole. A block's work is shared by heads, and by tiles of the feed-forward's hidden
layer, because nothing in between crosses those: queries, keys, values, attention and the head's
part of the output projection are one program's, and so are both layers of a tile. What a program
adds to the tokens is a summand of its own in global memory; the programs meet, and each sums up all
of them. So a pass of a block costs two meetings, and what is before and after the blocks none.

Summands belong to heads and tiles and not to programs, and are added in their order: the result is
the same to the bit for every P.

Shapes: B batch, K loops, S steps, L blocks, D width, N observation tokens, R action tokens (ROWS),
H = R * GROUP actions of A numbers (ACTIONS). Names in upper case are constants of the compilation;
PAD_ is the power of two that a tile has in place of a number. Weights are (in, out), the other way
round from torch, so that neighbouring threads read neighbouring numbers.
"""

# ruff: noqa: N803 - Triton's constants are in upper case, arguments though they are
# Triton compiles these functions from their source: to a type checker, its tensors are untyped.
# pyright: basic, reportArgumentType=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import triton
import triton.language as tl

HEAD: tl.constexpr = tl.constexpr(32)  # policy.block.HEAD_SIZE
KEYS: tl.constexpr = tl.constexpr(32)  # observation tokens that are looked at together
PART: tl.constexpr = tl.constexpr(32)  # numbers of a long sum that one thread adds up
FORBIDDEN: tl.constexpr = tl.constexpr(float("-inf"))


# A number that is 1 or a multiple of 16 would be compiled for once more, for seconds.
@triton.jit(do_not_specialize=["batch", "tokens", "loops", "steps"])
def denoise_kernel(
    noise,  # (B, H, A)
    keys,  # (K L, B, heads, N, HEAD)
    values,
    mask,  # (B, N): 0 where nothing may attend to; read where MASKED
    share,  # (B, R): how much of each token is committed; read, as is `known`, where COMMITTED
    known,  # (B, H): 0 but for actions that stay as they are
    schedule,  # (S, 6), see sampler
    modulations,  # (S, L, 6, D), see sampler
    queries_keys_values,  # (L, D, 3 D); of the weights' type, as the next three
    attention_out,  # (L, D, D)
    feedforward_in,  # (L, D, 2 HIDDEN)
    feedforward_out,  # (L, HIDDEN, D)
    action_in,  # (GROUP A, D)
    action_place,  # (R, D): positions and the bias
    embedding,  # (max loops, D)
    carry,  # (D,); read where INJECTED
    clean,  # (L, 6, D): modulations at the end of time; read where COMMITTED
    out_scale,  # (D,)
    out_shift,
    action_out,  # (D, GROUP A)
    action_bias,  # (GROUP A,)
    visible,  # (A,): 0 where the model is not shown a sample's
    batch,
    tokens,
    loops,
    steps,
    chunk,  # (B, H, A): the sample after the last step
    said,  # (B, H, A): what the model said in the last step
    summands,  # (B, heads + tiles, R, D)
    arrivals,  # (B,) int32, zeros at the start
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    ACTIONS: tl.constexpr,
    TILE: tl.constexpr,
    PAD_WIDTH: tl.constexpr,
    PAD_ROWS: tl.constexpr,
    PAD_ACTIONS: tl.constexpr,
    MASKED: tl.constexpr,
    COMMITTED: tl.constexpr,
    INJECTED: tl.constexpr,
):
    """Grid (P, B). Where P > 1, all programs must be on the GPU at the same time."""
    heads: tl.constexpr = WIDTH // HEAD
    tiles: tl.constexpr = (HIDDEN + TILE - 1) // TILE
    together: tl.constexpr = GROUP * ACTIONS
    program, programs, one = tl.program_id(0), tl.num_programs(0), tl.program_id(1)

    row = tl.arange(0, PAD_ROWS)[:, None]
    column = tl.arange(0, PAD_WIDTH)
    across = column[None, :]
    in_token = (row < ROWS) & (across < WIDTH)
    at_token = row * WIDTH + across
    summands += one * (heads + tiles) * ROWS * WIDTH + at_token
    arrivals += one

    element = tl.arange(0, PAD_ACTIONS)
    number = element[None, :]
    in_chunk = (row < ROWS) & (number < together)
    at_chunk = one * ROWS * together + row * together + number
    sample = tl.load(noise + at_chunk, mask=in_chunk, other=0.0)
    output = tl.zeros_like(sample)
    shown = tl.load(visible + number % ACTIONS, mask=in_chunk, other=0.0) != 0.0
    stays = in_chunk & False
    part = tl.zeros([PAD_ROWS, 1], tl.float32)
    if COMMITTED:
        at_known = one * ROWS * GROUP + row * GROUP + number // ACTIONS
        stays = tl.load(known + at_known, mask=in_chunk, other=0.0) != 0.0
        shown = shown | stays
        part = tl.load(share + one * ROWS + row, mask=row < ROWS, other=0.0)

    meetings = 0
    for step in range(steps):
        weights = _tile(action_in, element, column, WIDTH, together, WIDTH)
        state = _product(tl.where(shown, sample, 0.0), weights)
        state += tl.load(action_place + at_token, mask=in_token, other=0.0)
        start = state
        for loop in range(loops):
            if INJECTED:  # before the first loop the state is the start, and stays it to the bit
                carried = tl.load(carry + across, mask=across < WIDTH, other=0.0)
                state = start + carried * (state - start)
            embedded = tl.load(embedding + loop * WIDTH + across, mask=across < WIDTH, other=0.0)
            state = tl.where(in_token, state + embedded, 0.0)
            for block in range(BLOCKS):
                now = modulations + (step * BLOCKS + block) * 6 * WIDTH + across
                then = clean + block * 6 * WIDTH + across

                shift = _modulation(now, then, part, 0, across, WIDTH, COMMITTED)
                scale = _modulation(now, then, part, 1, across, WIDTH, COMMITTED)
                normed = _normalized(state, across, WIDTH) * scale + shift
                normed = _split(normed, PAD_ROWS, PAD_WIDTH)
                for head in range(program, heads, programs):
                    kept = (((loop * BLOCKS + block) * batch + one) * heads + head) * tokens * HEAD
                    added = _attended(
                        normed,
                        queries_keys_values + block * WIDTH * 3 * WIDTH + head * HEAD,
                        attention_out + (block * WIDTH + head * HEAD) * WIDTH,
                        *(keys + kept, values + kept, mask + one * tokens, tokens),
                        *(column, WIDTH, ROWS, PAD_ROWS, MASKED),
                    )
                    tl.store(summands + head * ROWS * WIDTH, added, mask=in_token)
                # Read before the meeting, so that others are waited for meanwhile.
                gate = _modulation(now, then, part, 2, across, WIDTH, COMMITTED)
                shift = _modulation(now, then, part, 3, across, WIDTH, COMMITTED)
                scale = _modulation(now, then, part, 4, across, WIDTH, COMMITTED)
                meetings += 1
                _meet(arrivals, programs, meetings)
                state += gate * _sum(summands, 0, heads, in_token, ROWS * WIDTH)

                normed = _normalized(state, across, WIDTH) * scale + shift
                normed = _split(normed, PAD_ROWS, PAD_WIDTH)
                for tile in range(program, tiles, programs):
                    added = _fed_forward(
                        normed,
                        feedforward_in + block * WIDTH * 2 * HIDDEN,
                        feedforward_out + block * HIDDEN * WIDTH,
                        *(tile, column, WIDTH, HIDDEN, TILE, PAD_ROWS),
                    )
                    tl.store(summands + (heads + tile) * ROWS * WIDTH, added, mask=in_token)
                gate = _modulation(now, then, part, 5, across, WIDTH, COMMITTED)
                meetings += 1
                _meet(arrivals, programs, meetings)
                state += gate * _sum(summands, heads, tiles, in_token, ROWS * WIDTH)

        scale = tl.load(out_scale + across, mask=across < WIDTH, other=0.0)
        shift = tl.load(out_shift + across, mask=across < WIDTH, other=0.0)
        bias = tl.load(action_bias + number, mask=number < together, other=0.0)
        normed = _normalized(state, across, WIDTH) * scale + shift
        normed = _split(normed, PAD_ROWS, PAD_WIDTH)
        output = _long(normed, action_out, element, together, WIDTH, together) + bias
        sample = tl.where(stays, sample, _moved(sample, output, schedule + step * 6))

    tl.store(chunk + at_chunk, sample, mask=in_chunk & (program == 0))
    tl.store(said + at_chunk, output, mask=in_chunk & (program == 0))


@triton.jit
def _attended(
    normed,
    queries_keys_values,
    attention_out,
    keys,
    values,
    mask,
    tokens,
    column,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PAD_ROWS: tl.constexpr,
    MASKED: tl.constexpr,
):
    """What one head adds to the tokens, but for the gate. The pointers are at that head."""
    inside = tl.arange(0, HEAD)
    query = _long(normed, queries_keys_values, inside, 3 * WIDTH, WIDTH, HEAD) * HEAD**-0.5
    own_key = _long(normed, queries_keys_values + WIDTH, inside, 3 * WIDTH, WIDTH, HEAD)
    own_value = _long(normed, queries_keys_values + 2 * WIDTH, inside, 3 * WIDTH, WIDTH, HEAD)

    # The tokens' own keys first: of them there is always one, so that no sum is empty.
    itself = tl.arange(0, PAD_ROWS)[None, :]
    own = tl.where(itself < ROWS, _product(query, tl.trans(own_key)), FORBIDDEN)
    peak = tl.max(own, 1)
    own = tl.exp(own - peak[:, None])
    total = tl.sum(own, 1)
    attended = _product(own, own_value)
    for first in range(0, tokens, KEYS):
        token = first + tl.arange(0, KEYS)
        there = token < tokens
        if MASKED:
            there = tl.load(mask + token, mask=there, other=0.0) != 0.0
        at = token[None, :] * HEAD + inside[:, None]
        key = tl.load(keys + at, mask=token[None, :] < tokens, other=0.0).to(tl.float32)
        logits = tl.where(there[None, :], _product(query, key), FORBIDDEN)
        higher = tl.maximum(peak, tl.max(logits, 1))
        weight = tl.exp(logits - higher[:, None])
        shrunk = tl.exp(peak - higher)
        value = _tile(values, token, inside, HEAD, tokens, HEAD)
        attended = attended * shrunk[:, None] + _product(weight, value)
        total = total * shrunk + tl.sum(weight, 1)
        peak = higher
    attended = attended / total[:, None]
    return _product(attended, _tile(attention_out, inside, column, WIDTH, HEAD, WIDTH))


@triton.jit
def _fed_forward(
    normed,
    feedforward_in,
    feedforward_out,
    tile,
    column,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    TILE: tl.constexpr,
    PAD_ROWS: tl.constexpr,
):
    """What one tile of the hidden layer adds to the tokens, but for the gate."""
    hidden = tile * TILE + tl.arange(0, TILE)
    gate = _long(normed, feedforward_in, hidden, 2 * HIDDEN, WIDTH, HIDDEN)
    value = _long(normed, feedforward_in + HIDDEN, hidden, 2 * HIDDEN, WIDTH, HIDDEN)
    opened = gate / (1.0 + tl.exp(-gate)) * value
    return _product(opened, _tile(feedforward_out, hidden, column, WIDTH, HIDDEN, WIDTH))


@triton.jit
def _tile(matrix, rows, columns, stride, row_count, column_count):
    """Elements of a matrix as float32, zero where there are none."""
    there = (rows[:, None] < row_count) & (columns[None, :] < column_count)
    at = matrix + rows[:, None] * stride + columns[None, :]
    return tl.load(at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _product(rows, matrix):
    """rows (r, n) by matrix (n, m), float32 throughout: `ieee` is what is not TF32."""
    if rows.shape[1] < 16:  # fewer than a dot takes
        product = tl.sum(rows[:, :, None] * matrix[None, :, :], 1)
    else:
        product = tl.dot(rows, matrix, input_precision="ieee")
    return product


@triton.jit
def _split(rows, PAD_ROWS: tl.constexpr, PAD_WIDTH: tl.constexpr):
    """rows (r, D) -> (D / PART, r, PART)."""
    return tl.permute(tl.reshape(rows, [PAD_ROWS, PAD_WIDTH // PART, PART]), (1, 0, 2))


@triton.jit
def _long(rows, matrix, columns, stride, WIDTH: tl.constexpr, column_count):
    """What `_split` made of rows, by columns of a matrix of WIDTH rows.

    Few rows and columns are too few sums to give each thread one; so each is split in parts.
    """
    part = tl.arange(0, rows.shape[0])[:, None, None] * PART
    line = part + tl.arange(0, PART)[None, :, None]
    columns = columns[None, None, :]
    there = (line < WIDTH) & (columns < column_count)
    weights = tl.load(matrix + line * stride + columns, mask=there, other=0.0).to(tl.float32)
    return tl.sum(tl.dot(rows, weights, input_precision="ieee"), 0)


@triton.jit
def _normalized(state, across, WIDTH: tl.constexpr):
    """Each row with mean 0 and variance 1, as nn.LayerNorm has it; beyond WIDTH zeros."""
    mean = tl.sum(state, 1)[:, None] / WIDTH
    centred = tl.where(across < WIDTH, state - mean, 0.0)
    variance = tl.sum(centred * centred, 1)[:, None] / WIDTH
    return centred * tl.rsqrt(variance + 1e-5)


@triton.jit
def _modulation(
    now, then, part, which: tl.constexpr, across, WIDTH: tl.constexpr, COMMITTED: tl.constexpr
):
    """One of the six (1 or R, D): between the step's and that of what is clean, by the share."""
    made = tl.load(now + which * WIDTH, mask=across < WIDTH, other=0.0)
    if COMMITTED:
        end = tl.load(then + which * WIDTH, mask=across < WIDTH, other=0.0)
        made = made + part * (end - made)
    return made


@triton.jit
def _sum(summands, first: tl.constexpr, count: tl.constexpr, in_token, SIZE: tl.constexpr):
    """`count` summands (R, D), in their order; from L2, where what others wrote is."""
    at = summands + first * SIZE
    total = tl.load(at, mask=in_token, other=0.0, cache_modifier=".cg")
    for i in tl.static_range(1, count):
        total += tl.load(at + i * SIZE, mask=in_token, other=0.0, cache_modifier=".cg")
    return total


@triton.jit
def _moved(sample, output, schedule):
    """A step of the sampler, whose arithmetic is in `sampler`."""
    clip = tl.load(schedule + 2)
    chunk = sample * tl.load(schedule) + output * tl.load(schedule + 1)
    bounded = tl.minimum(tl.maximum(chunk, -clip), clip)
    moved = sample * tl.load(schedule + 3) + output * tl.load(schedule + 4)
    return moved + bounded * tl.load(schedule + 5)


@triton.jit
def _meet(arrivals, programs, meetings):
    """Return when all programs of the observation have come; what they wrote before is seen after.

    The count only grows, so there is nothing to be reset between two meetings. Inside a program
    its threads are in step before one of them says so to the others, and after one of them has
    heard from all.
    """
    tl.debug_barrier()
    if programs > 1:
        tl.atomic_add(arrivals, 1, sem="release")
        seen = tl.atomic_add(arrivals, 0, sem="acquire")
        while seen < programs * meetings:
            seen = tl.atomic_add(arrivals, 0, sem="acquire")
    tl.debug_barrier()
