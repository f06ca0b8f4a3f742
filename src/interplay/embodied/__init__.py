"""Controllers of bodies: the wiring of motor circuits as the prior of a policy."""
