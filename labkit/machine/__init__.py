"""The machine: devices, processes, threads, signals."""
