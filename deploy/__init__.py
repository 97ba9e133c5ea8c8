"""From checkpoint to robot: bundle, back ends, wire protocol, server, client, latency."""
