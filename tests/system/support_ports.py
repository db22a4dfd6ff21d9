"""Ports for programs that tests start: none that the system would give to who asks for any, as other tests' programs do,
which would take it before it is bound."""
import random, socket

_FROM, _BELOW = 10000, 32768  # Linux gives 32768 and more (net.ipv4.ip_local_port_range)
_given = set()


def free_port():
    """A port that nobody has now, for TCP and UDP; another one each time."""
    while True:
        port = random.randrange(_FROM, _BELOW)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                for one in (tcp, udp):
                    one.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
