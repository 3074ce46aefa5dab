"""From CAMs to pseudo masks: affinity labels, AffinityNet, the random walk."""
