from typing import cast

import pytest
import torch
from tests.policy.graft.grafts import halting_gates, moved, tiny_graft, video
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.graft.backbone import TINY, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import Graft, graft

_OPTIONS: list[dict[str, object]] = [
    {"loops": 3},
    {"loops": 3, "sharpest": 2.0},
    {"loops": 3, "injection": True},
    {"loops": 3, "halting": "token"},
    {"loops": 1, "freeze": "half"},
    {"loops": 1, "looped": "nothing", "freeze": "all"},
    {"loops": 4, "looped": "expert"},
]


def _ungrafted() -> Tensor:
    with torch.no_grad():
        return named_transformer(TINY, seed=0)(*video(), return_dict=False)[0]


def _said(grafted: Graft, loops: int) -> Tensor:
    with torch.no_grad():
        return grafted(*video(), loops=loops).sample


@pytest.mark.parametrize("options", _OPTIONS)
def test_one_loop_is_the_ungrafted_model_bit_for_bit(options: dict[str, object]):
    assert torch.equal(_said(tiny_graft(**options), 1), _ungrafted())


def test_one_loop_with_positions_is_the_ungrafted_model_to_rounding():
    torch.testing.assert_close(
        _said(tiny_graft(geometric=True), 1), _ungrafted(), rtol=1e-5, atol=1e-6
    )


def test_later_loops_start_near_the_first_and_the_papers_start_does_not():
    plain = _ungrafted()

    def error(init: str, loops: int) -> float:
        said = _said(tiny_graft(loops=4, init=init), loops)
        return float((said - plain).norm() / plain.norm())

    assert all(0 < error("identity", loops) < 2e-3 for loops in (2, 3, 4))
    assert error("paper", 1) > 1e-2


@pytest.mark.parametrize("injection", [False, True])
def test_a_loop_is_the_gated_mean_of_a_block_and_what_it_was_given(injection: bool):
    block = moved(tiny_graft(loops=3, injection=injection)).blocks[0]
    carries = [
        each.logit.sigmoid()
        for each in (block.hidden_injection, block.encoder_injection)
        if each is not None
    ]
    generator = torch.Generator().manual_seed(3)
    hidden, text = (torch.randn(2, n, 48, generator=generator) for n in (5, 4))
    time = torch.randn(2, 32, generator=generator)
    h, m = hidden, text
    with torch.no_grad():
        for loop in range(3):  # equation 1 of the paper, of both streams
            if carries:  # ours: the block's input is mixed into each stream first
                h, m = hidden + carries[0] * (h - hidden), text + carries[1] * (m - text)
            gate = block.gate_logit[loop].sigmoid() * (2 if loop == 0 else 1)
            e, f = block.hidden_embedding[loop], block.encoder_embedding[loop]
            after, text_after = block.block(h + e, m + f, time)
            h, m = gate * after + (1 - gate) * h, gate * text_after + (1 - gate) * m
        found = block(hidden, text, time)
    torch.testing.assert_close(found, (h, m), rtol=1e-5, atol=1e-5)


def test_every_loop_of_every_block_changes_what_is_said():
    grafted = moved(tiny_graft(loops=3))
    said = [_said(grafted, loops) for loops in grafted.depths]
    assert not torch.equal(said[0], said[1])
    assert not torch.equal(said[1], said[2])


def test_unlooping_gives_back_the_same_object_with_the_same_parameters():
    transformer = named_transformer(TINY, seed=0)
    transformer.proj_out.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in transformer.named_parameters()}
    processors = dict(transformer.attn_processors)
    grafted = graft(transformer, GraftConfig(loops=3, freeze="unfrozen", sharpest=2.0))
    moved(grafted)
    back = grafted.unloop()
    assert back is transformer
    after = dict(back.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [n for n, p in after.items() if not p.requires_grad] == ["proj_out.weight"]
    assert back.attn_processors == processors
    with torch.no_grad():
        assert torch.equal(back(*video(), return_dict=False)[0], _ungrafted())


def test_diffusers_own_forward_runs_a_graft_at_all_its_loops():
    grafted = moved(tiny_graft(loops=2))
    with torch.no_grad():
        assert torch.equal(
            grafted.transformer(*video(), return_dict=False)[0], grafted(*video()).sample
        )


def test_what_is_read_for_actions_is_what_the_output_layers_are_given():
    grafted = moved(tiny_graft(loops=2))
    with torch.no_grad():
        said = grafted(*video(1))
        transformer = grafted.transformer
        timesteps = transformer.time_proj(video(1)[2])
        time = transformer.time_embedding(timesteps)
        patches = transformer.proj_out(transformer.norm_out(said.hidden, temb=time))
    frames = patches.view(1, 3, 4, 6, 16, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)
    torch.testing.assert_close(frames.reshape(1, 3, 16, 8, 12), said.sample)


def test_sharper_attention_is_that_of_larger_queries():
    sharp = moved(tiny_graft(loops=2, sharpest=3.0))
    plain = moved(tiny_graft(loops=2))
    block = plain.blocks[0]
    generator = torch.Generator().manual_seed(3)
    tokens = (
        torch.randn(2, 5, 48, generator=generator),
        torch.randn(2, 4, 48, generator=generator),
    )
    time = torch.randn(2, 32, generator=generator)
    with torch.no_grad():
        found = sharp.blocks[0]._loop(  # pyright: ignore[reportPrivateUsage]
            1, tokens, tokens, _around(sharp, time)
        )
        norm = cast(nn.LayerNorm, block.block.attn1.norm_q)
        norm.weight.mul_(3.0)
        norm.bias.mul_(3.0)
        wanted = block._loop(1, tokens, tokens, _around(plain, time))  # pyright: ignore[reportPrivateUsage]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def _around(grafted: Graft, time: Tensor):
    from loopdit.policy.graft.looped_block import Looping, _Around  # pyright: ignore[reportPrivateUsage]

    return _Around(Looping(2), time, None, None, {})


def test_positions_that_were_learned_tell_equal_tokens_apart():
    grafted = tiny_graft(loops=1, geometric=True)
    with torch.no_grad():
        for block in grafted.blocks:
            assert block.query_positions is not None
            block.query_positions.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(_said(grafted, 1), _ungrafted(), atol=1e-4)


def test_tokens_that_halt_at_once_are_computed_by_one_loop():
    grafted = moved(tiny_graft(loops=3, halting="token"))
    for gate in halting_gates(grafted):
        with torch.no_grad():
            gate.weight.zero_()
            gate.bias.fill_(30.0)
    with torch.no_grad():
        said = grafted(*video())
        assert torch.equal(said.loops_used, torch.ones_like(said.loops_used))
        assert torch.equal(grafted(*video(), loops=1).hidden, said.hidden)


def test_halting_that_skips_says_what_halting_that_computes_everything_does():
    grafted = moved(tiny_graft(loops=3, halting="token", geometric=True))
    # Some tokens halt after the first loop for certain, the others never.
    for gate in halting_gates(grafted):
        with torch.no_grad():
            gate.bias.zero_()
            gate.weight.mul_(1e4)
    with torch.no_grad():
        skipped = grafted.eval()(*video())
        computed = grafted.train()(*video())
    assert 1 < float(skipped.loops_used.mean()) < 3
    torch.testing.assert_close(skipped.loops_used, computed.loops_used)
    torch.testing.assert_close(skipped.sample, computed.sample, rtol=1e-3, atol=1e-4)


def test_the_ponder_cost_is_of_the_loops_used():
    grafted = tiny_graft(loops=3, halting="token", ponder=0.5)
    said = grafted.train()(*video())
    torch.testing.assert_close(said.ponder, 0.5 * said.loops_used.mean())
    said.ponder.backward()
    gradient = halting_gates(grafted)[0].bias.grad
    assert gradient is not None
    assert float(gradient) < 0  # more of halting is less of looping


def test_a_transformer_in_bf16_is_looped_in_bf16_with_parameters_in_float32():
    transformer = named_transformer(TINY, seed=0)
    nn.Module.to(transformer, torch.bfloat16)
    grafted = graft(transformer, GraftConfig(loops=2, freeze="frozen"))
    latents, text, timesteps = video()
    with torch.no_grad():
        said = grafted(latents.bfloat16(), text.bfloat16(), timesteps)
    assert said.sample.dtype == torch.bfloat16
    assert {p.dtype for p in grafted.loop_parameters()} == {torch.float32}


@pytest.mark.parametrize("loops", [0, 4])
def test_a_depth_that_there_is_not_is_refused(loops: int):
    with pytest.raises(ConfigError, match=f"loops={loops} is out of range.*1 to 3"):
        tiny_graft(loops=3)(*video(), loops=loops)


def test_grafting_twice_is_refused():
    grafted = tiny_graft(loops=2)
    with pytest.raises(ConfigError, match="grafted already"):
        graft(grafted.transformer, GraftConfig())


def test_halting_is_refused_where_it_cannot_be():
    with pytest.raises(ConfigError, match="checkpoint=loop does not go with halting=token"):
        tiny_graft(halting="token")(*video(), checkpointing="loop")
    turning = named_transformer(TINY, seed=0)
    turning.register_to_config(use_rotary_positional_embeddings=True)
    with pytest.raises(ConfigError, match="rotates queries and keys"):
        graft(turning, GraftConfig(halting="token"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loops": 0}, "loops=0"),
        ({"init": "zero"}, "init=zero is unknown"),
        ({"freeze": "most"}, "freeze=most is unknown"),
        ({"looped": "nothing"}, "loops=3 does nothing with looped=nothing"),
        ({"looped": "expert", "sharpest": 2.0}, "sharpest=2.0 does nothing without"),
        ({"ponder": 0.1}, "ponder=0.1 does nothing without halting=token"),
        ({"sharpest": 0.5}, "sharpest=0.5"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(options: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        GraftConfig(**options)  # pyright: ignore[reportArgumentType]
