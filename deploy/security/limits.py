"""How much one client may ask: messages in a second, by a token bucket for each.

Pure: time is an argument. The size of a message is limited where it is read (MAXMSGSIZE, the
dispatcher's `max_bytes`), the number of tensors by the protocol, of sessions by `Sessions`.
"""

# A robot asks at 10 to 50 Hz, and pings and resets besides.
NETWORK_MESSAGES_PER_S = 1000.0
# Buckets kept; beyond, the one that was idle longest starts anew, which is to its owner's good.
_MAX_PEERS = 4096


class RateLimit:
    """Lets each peer send `messages_per_s` on average, and a second's worth of them at once."""

    def __init__(self, messages_per_s: float) -> None:
        self._rate = messages_per_s
        self._burst = max(1.0, messages_per_s)
        self._left: dict[bytes, tuple[float, float]] = {}  # tokens, and when they were counted

    def admit(self, peer: bytes, now: float) -> bool:
        """Whether one more message of `peer` may be looked at."""
        tokens, counted_s = self._left.pop(peer, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted_s) * self._rate)
        admitted = tokens >= 1.0
        # Popped and put back: the dict is in the order of the last message.
        self._left[peer] = (tokens - 1.0 if admitted else tokens, now)
        if len(self._left) > _MAX_PEERS:
            del self._left[next(iter(self._left))]
        return admitted
