"""What the processes of `testbed calibrate` do: time passes, codecs, and a round trip between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from statistics import median

import numpy as np

from testbed.actors.calls import BackCall, BackItem, CloseCall, FrontCall, HostSpec
from testbed.codecs.framing import Envelope
from testbed.codecs.named import make_codec
from testbed.models.shape import ModelShape
from testbed.scenarios.schema import Servers
from testbed.schedulers.fifo import FifoScheduler
from testbed.studies.local.effort import Effort, cuts_of
from testbed.studies.local.fit import Pass
from testbed.studies.local.wire import now_ns

_BITS = 32
_CODECS = ("int8", "int4", "raw-float32", "raw-bfloat16")
_CODEC_TOKENS = (1, 32, 320)
_CODEC_REPEATS, _CODEC_WARM_UP = 15, 3
_PINGS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTime:
    """How long a codec took with one message."""

    moved_bytes: int  # hidden states and message, times the codec's passes
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What one side has measured."""

    passes: tuple[Pass, ...]
    codecs: tuple[CodecTime, ...]


def time_server(spec: HostSpec, effort: Effort, pipe: Pipe) -> None:
    """Times the server's side; afterwards sends back whatever it is sent."""
    from testbed.studies.local.passes import server_passes  # noqa: PLC0415 - loads torch, in the child only

    # KV and admission stay at their defaults, which limit nothing.
    servers = Servers.model_construct(max_batch=64, max_prefill_tokens=10**6, scheduler=FifoScheduler.Config())
    cuts = cuts_of(spec.source.shape)
    found = [item for split in cuts for item in server_passes(spec, servers, split, effort)]
    pipe.send(Timed(passes=tuple(found), codecs=tuple(_codec_times(spec, encoding=False))))
    while True:
        pipe.send_bytes(pipe.recv_bytes())


def time_device(spec: HostSpec, effort: Effort, pipe: Pipe) -> None:
    """Times a device's side."""
    from testbed.studies.local.passes import device_passes  # noqa: PLC0415 - loads torch, in the child only

    cuts = cuts_of(spec.source.shape)
    found = [item for split in cuts for item in device_passes(spec, split, effort)]
    pipe.send(Timed(passes=tuple(found), codecs=tuple(_codec_times(spec, encoding=True))))


def one_way_ns(pipe: Pipe) -> int:
    """Half of a round trip to a sleeping process of this machine and back."""
    times_ns = []
    for _ in range(_PINGS):
        started_ns = now_ns()
        pipe.send_bytes(b"ping")
        pipe.recv_bytes()
        times_ns.append(now_ns() - started_ns)
    return round(median(times_ns) / 2)


def _codec_times(spec: HostSpec, *, encoding: bool) -> list[CodecTime]:
    """Encoding on a device, or decoding on a server, each within a real pass of one layer."""
    from testbed.actors.shard_host import ShardHost  # noqa: PLC0415 - loads torch, in the child only

    host, shape, call_of = ShardHost(spec), spec.source.shape, _front if encoding else _back
    found = []
    for name in _CODECS:
        codec = make_codec(name)
        percent = codec.effort.encode_percent if encoding else codec.effort.decode_percent
        for num_tokens in _CODEC_TOKENS:
            times_ns: list[int] = []
            for session in range(_CODEC_WARM_UP + _CODEC_REPEATS):
                (done,) = host.execute([call_of(shape, session, name, num_tokens)])
                host.execute([CloseCall(session=session)])
                times_ns.append(done.codec_ns)
            moved = shape.hidden_bytes(num_tokens, _BITS) + codec.nbytes(num_tokens, shape.hidden_size)
            time_ns = round(median(times_ns[_CODEC_WARM_UP:]))
            found.append(CodecTime(moved_bytes=moved * percent // 100, time_ns=time_ns))
    return found


def _front(_: ModelShape, session: int, codec: str, num_tokens: int) -> FrontCall:
    return FrontCall(session=session, split=1, codec=codec, tokens=tuple(range(1, num_tokens + 1)))


def _back(shape: ModelShape, session: int, codec: str, num_tokens: int) -> BackCall:
    split = shape.num_layers - 1
    hidden_ND = np.random.default_rng(session).standard_normal((num_tokens, shape.hidden_size)).astype(np.float32)
    message = make_codec(codec).encode(hidden_ND, Envelope(session, 0, split))
    item = BackItem(session=session, sampling_seed=0, split=split, codec=codec, message=message)
    return BackCall(items=(item,))
