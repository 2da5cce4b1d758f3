"""Small networks for tests, and senders of bare packets."""

from __future__ import annotations

from itertools import pairwise

from testbed.network_models.ports.packet import Packet
from testbed.network_models.topology.network import Network, Transit
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Topology


def edge(one, other, **changes):
    """8 Mbit/s, so that a byte takes a microsecond, and 5 ms."""
    return {"between": [one, other], "rate": "8 Mbit/s", "delay": "5 ms", **changes}


def line(*names, **changes):
    return graph(names, [edge(one, other, **changes) for one, other in pairwise(names)])


def graph(names, edges, **changes):
    return {"nodes": [{"name": name} for name in names], "edges": edges, **changes}


def network(env, data, *, seed=1):
    return Network(env, validate(Topology, data), seed=seed)


class Far:
    """The end of packets: when each arrived, and which did not."""

    def __init__(self, env):
        self.env = env
        self.arrived_ns = {}
        self.packets = {}
        self.gone = []

    def left(self, packet, left_ns):
        pass

    def dropped(self, packet):
        self.gone.append(packet.number)

    def lost(self, packet, gone_ns):
        self.gone.append(packet.number)

    def arrived(self, packet):
        self.arrived_ns[packet.number] = int(self.env.now)
        self.packets[packet.number] = packet


def send(net, far, way, sizes, *, at_ns=0, entity=0, first=0):
    """Packets of these sizes, handed over together at an instant; numbered from `first`."""
    transit = Transit(network=net, source=way[0], target=way[1])

    def hand_over(_):
        for number, size in enumerate(sizes, first):
            transit.offer(Packet(size, far, (transit,), entity, number, 0, 0, at_ns))

    far.env.timeout(at_ns).callbacks.append(hand_over)
