"""What every job stands on: outputs that appear whole, logs, devices, processes, checkpoints."""
