"""rANS by tables that a session agreed on: nothing is lost, everything can be coded, and short messages shrink."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.codecs.agreed import Agreed, agree, needs_agreement
from testbed.codecs.compiling import kernels
from testbed.codecs.entropy import NONE, RANS_AGREED
from testbed.codecs.framing import CRC_BYTES, HEADER_BYTES, CodecError, unpack_header
from testbed.codecs.named import make_codec, size_law
from testbed.codecs.tables import frequencies_of, grouped
from testbed.core.errors import ScenarioError
from testbed.models.pebble.prompts import prompts
from testbed.models.shard import Shard, ShardInput
from testbed.models.source import resolve
from testbed.models.tokenizer import load_tokenizer
from testbed.scenarios.codec_setting import read_setting, write_setting
from tests.mutations import mutated, resealed

CHANNELS = 96
SPREADS = np.exp(np.random.default_rng(7).standard_normal(CHANNELS))
PLAIN = [
    "tabq(delta=0.1)",
    "tabq(delta=0.2,symmetric=false)",
    "int4(rotate=hadamard)",
    "ts-tabq(delta=0.2,tau=3)",
    "int8",
    "int4",
    "fp8",
    "raw-bfloat16",
]
CASES = list(itertools.product(PLAIN, ["agreed", "channel"]))


def tabled(setting, tables):
    name, _, inner = setting.rstrip(")").partition("(")
    return f"{name}({','.join(filter(None, [inner, 'entropy=rans', f'tables={tables}']))})"


def states(num_tokens, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((num_tokens, CHANNELS)) * SPREADS).astype(np.float32)


@cache
def agreed_codec(setting, tables, seed=1):
    written = tabled(setting, tables)
    return make_codec(written, agree(written, states(300, seed)))


@pytest.mark.parametrize(("setting", "tables"), CASES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), num_tokens=st.integers(0, 60), power=st.sampled_from([0.0, 0.2, 1.0, 5.0]))
def test_any_message_can_be_coded_and_loses_nothing(setting, tables, seed, num_tokens, power):
    plain, codec = make_codec(setting), agreed_codec(setting, tables)
    rows = states(num_tokens, seed)
    rows = (np.sign(rows) * np.abs(rows) ** power).astype(np.float32)  # far from what was counted, too
    message = codec.encode(rows)
    assert len(message) <= len(plain.encode(rows))
    np.testing.assert_array_equal(codec.decode(message), plain.decode(plain.encode(rows)))


@pytest.mark.parametrize(("setting", "tables"), CASES)
def test_short_messages_take_fewer_bytes_than_packed_or_with_a_table(setting, tables):
    rows = states(30, seed=5)
    coded, with_a_table, packed = (
        sum(len(codec.encode(row[None])) for row in rows)
        for codec in (agreed_codec(setting, tables), make_codec(tabled(setting, "message")), make_codec(setting))
    )
    assert coded < with_a_table <= packed


def test_tables_of_channels_shorten_messages_whose_channels_differ():
    rows = states(64, seed=6)
    for setting in (PLAIN[0], PLAIN[3], "int8", "fp8"):
        one, several = agreed_codec(setting, "agreed"), agreed_codec(setting, "channel")
        assert 8 * (len(one.encode(rows)) - len(several.encode(rows))) / rows.size > 0.1, setting


def test_decode_steps_of_pebble_take_fewer_bytes_than_packed():
    source = resolve("pebble")
    shard, tokenizer = Shard(source, start=0, stop=6), load_tokenizer(source)

    def hidden(texts):
        for number, text in enumerate(texts):
            shard.open(number)
            yield shard.forward([ShardInput(session=number, tokens=tokenizer.encode(text))])[0]

    *calibration, held_out = hidden(prompts(3, 40))
    setting = "tabq(delta=0.1)"
    packed = [len(make_codec(setting).encode(row[None])) for row in held_out]
    with_a_table = [len(make_codec(tabled(setting, "message")).encode(row[None])) for row in held_out]
    assert packed == with_a_table
    agreed = agree(tabled(setting, "agreed"), np.concatenate(calibration))
    coded = [len(make_codec(tabled(setting, "agreed"), agreed).encode(row[None])) for row in held_out]
    assert np.mean(coded) < np.mean(packed) - 2


@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_widths_that_no_sample_chose_have_tables_of_their_own(delta):
    written = f"tabq(delta={delta},entropy=rans,tables=agreed)"
    agreed = agree(written, states(200))
    codec = make_codec(written, agreed)
    other = "tabq(delta=0,entropy=rans,tables=agreed)" if delta else "tabq(delta=0.3,entropy=rans,tables=agreed)"
    stranger = make_codec(other, agreed)  # the same tables, and rows of other widths
    rows = states(64, seed=8)
    assert unpack_header(stranger.encode(rows)).entropy == RANS_AGREED
    np.testing.assert_array_equal(codec.decode(stranger.encode(rows)), stranger.decode(stranger.encode(rows)))
    own = make_codec(other, agree(other, states(200)))
    assert len(stranger.encode(rows)) < 1.02 * len(own.encode(rows))


def test_the_size_is_what_constriction_takes_with_the_same_tables():
    constriction = pytest.importorskip("constriction", reason="the oracle for rANS sizes is a development extra")
    written = "int8(entropy=rans,tables=agreed)"
    agreed, rows = agree(written, states(500)), states(200, seed=2)
    symbols = np.frombuffer(make_codec("int8").encode(rows)[HEADER_BYTES + 4 * 200 : -CRC_BYTES], np.uint8)
    share = agreed.tables.frequencies[0, 0].astype(np.float64)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(
        symbols.astype(np.int32), constriction.stream.model.Categorical(share / share.sum(), perfect=False)
    )
    ours = len(make_codec(written, agreed).encode(rows)) - HEADER_BYTES - CRC_BYTES - 4 * 200
    assert ours == pytest.approx(4 * len(coder.get_compressed()), rel=0.003)


@given(
    shares=st.lists(st.one_of(st.just(1e-9), st.floats(1e-6, 1)), min_size=2, max_size=256),
)
def test_every_symbol_of_an_alphabet_has_a_frequency(shares):
    frequencies = frequencies_of(np.array(shares)).astype(int)
    assert frequencies.sum() == 4096
    assert frequencies[: len(shares)].min() >= 1
    assert frequencies[: len(shares)].max() < 4096
    assert not frequencies[len(shares) :].any()


def test_channels_that_are_alike_share_a_group():
    counts = np.zeros((12, 256))
    counts[::3, 10:20], counts[1::3, 100:104], counts[2::3, 60:140] = 5, 9, 1
    groups = grouped(counts, 3).tolist()
    assert len(set(groups)) == 3
    assert groups == groups[:3] * 4


@given(
    seed=st.integers(0, 2**32),
    num_rows=st.integers(0, 9),
    columns=st.integers(1, 70),
    num_groups=st.integers(1, 5),
)
def test_grouping_kernels_move_every_symbol_and_back(seed, num_rows, columns, num_groups):
    from testbed.codecs.compiling import reference

    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (num_rows, columns)).astype(np.uint8)
    groups = rng.integers(0, num_groups, columns)
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups, minlength=num_groups)
    flat = kernels().by_group(rows, order, sizes)
    np.testing.assert_array_equal(flat, reference().by_group(rows, order, sizes), strict=True)
    np.testing.assert_array_equal(kernels().by_row(flat, order, sizes), rows, strict=True)
    np.testing.assert_array_equal(reference().by_row(flat, order, sizes), rows, strict=True)


@pytest.mark.parametrize(("setting", "tables"), CASES)
def test_mutated_messages_give_a_tensor_or_the_typed_error(setting, tables):
    written = tabled(setting, tables)
    agreed, rng, refused = agree(written, states(300)), np.random.default_rng(4), 0
    codec, digest = make_codec(written, agreed), agreed.digest
    originals = [codec.encode(states(count, seed=count)) for count in (1, 7, 60)]
    for number in range(200):
        message = mutated(originals[number % 3], rng, digest)
        try:
            decoded = codec.decode(message)
        except CodecError:
            refused += 1
            continue
        header = unpack_header(message)
        assert decoded.shape == (header.num_tokens, header.hidden_size)
    assert 0 < refused < 200


@pytest.mark.parametrize(("setting", "tables"), [("int8", "agreed"), ("tabq(delta=0.1)", "channel")])
def test_both_sides_need_the_same_tables(setting, tables):
    written = tabled(setting, tables)
    assert needs_agreement(written)
    codec, other = agreed_codec(setting, tables), agreed_codec(setting, tables, seed=2)
    message = codec.encode(states(3))
    np.testing.assert_array_equal(agreed_codec(setting, tables).decode(message), codec.decode(message))
    for receiver in (other, make_codec(tabled(setting, "message")), make_codec(setting)):
        with pytest.raises(CodecError):
            receiver.decode(message)
        with pytest.raises(CodecError):  # nor with the checksum of a session without an agreement
            receiver.decode(resealed(message))
    for nothing in (None, Agreed(means=np.zeros(CHANNELS, np.float32))):
        with pytest.raises(CodecError, match="agree"):
            make_codec(written, nothing)
    with pytest.raises(CodecError, match="agreed on the tables"):
        size_law(written).encode(states(1))
    with pytest.raises(CodecError, match="tables agreed on for"):
        codec.encode(np.ones((1, 40), np.float32))
    assert size_law(written).nbytes(3, CHANNELS) >= len(message)


def test_rows_of_zeros_travel_packed():
    codec = agreed_codec("tabq(delta=0.1)", "channel")
    message = codec.encode(np.zeros((3, CHANNELS), np.float32))
    assert unpack_header(message).entropy == NONE
    assert not codec.decode(message).any()


def test_tables_are_a_setting_of_rans():
    assert write_setting(read_setting("int8(entropy=rans,tables=agreed)")) == "int8(entropy=rans,tables=agreed)"
    assert write_setting(read_setting("int8(entropy=rans,tables=message)")) == "int8(entropy=rans)"
    for setting in ("int8(tables=agreed)", "int8(entropy=zstd,tables=channel)"):
        with pytest.raises(ScenarioError, match="entropy: rans"):
            read_setting(setting)
