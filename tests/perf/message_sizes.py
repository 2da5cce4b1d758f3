"""What a message's size costs at resolution `messages`: ``python -m tests.perf.message_sizes`` prints the table."""

from __future__ import annotations

from tests.perf.bench_link import SIZE_BYTES, messages_per_cpu_s
from tests.perf.yardstick import simpy_timeouts_per_cpu_s

SIZES = {"16 KiB": SIZE_BYTES, "1 MiB": 2**20, "16 MiB": 2**24}
LOSSES = (0.0, 1e-4, 0.01)
NUM_LINKS, NUM_MESSAGES, ROUNDS = 100, 3000, 15


def main() -> None:
    best: dict[tuple[float, str], float] = {}
    for _ in range(ROUNDS):
        for p_loss in LOSSES:
            for name, size_bytes in SIZES.items():
                rate = messages_per_cpu_s("messages", NUM_LINKS, size_bytes, NUM_MESSAGES, p_loss)
                best[p_loss, name] = max(rate, best.get((p_loss, name), 0.0))
    print("| loss |", " | ".join(SIZES), "|")
    print("|---|" + "---|" * len(SIZES))
    for p_loss in LOSSES:
        print(f"| {p_loss:.2%} |", " | ".join(f"{best[p_loss, name]:,.0f}" for name in SIZES), "|")
    print(f"bare SimPy: {simpy_timeouts_per_cpu_s():,.0f} timeouts a CPU second")


if __name__ == "__main__":
    main()
