"""ZeRO by hand over several processes, pipeline and tensor parallelism in small."""
