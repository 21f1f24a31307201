"""What a sweep keeps on disk: its workdir, records, checkpoints and trackers."""
