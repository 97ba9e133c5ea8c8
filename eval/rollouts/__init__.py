"""One rollout: what drives it, what delays it, what goes wrong in it, what is measured of it."""
